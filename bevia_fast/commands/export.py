"""`bevia-fast export`."""

from __future__ import annotations

from pathlib import Path

from ..config import ExportConfig
from ..doors.exporting import export_hub
from ..doors.gguf import export_gguf
from ..doors.onnx import export_onnx
from ..runs.modelfile import load_trained
from .tables import FittedConsole


def run(config: ExportConfig) -> int:
    """Write the folder or the file and say so; return the exit code."""
    parameters, tokenizer, step = load_trained(config.run)
    name = Path(config.run).resolve().name
    if config.format == "gguf":
        export_gguf(parameters, tokenizer, name, Path(config.to))
        FittedConsole().say(f"{config.to} opens with llama.cpp.")
    elif config.format == "onnx":
        export_onnx(parameters, tokenizer, name, Path(config.to))
        FittedConsole().say(f"{config.to} opens with onnxruntime.")
    else:
        export_hub(parameters, tokenizer, step, Path(config.to))
        FittedConsole().say(f"{config.to} opens with transformers: AutoModelForCausalLM and AutoTokenizer.")
    return 0
