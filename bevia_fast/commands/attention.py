"""`bevia-fast attention`: the attention weights of each layer and head of a trained model for a prompt."""

from __future__ import annotations

from pathlib import Path

from ..config import AttentionConfig
from ..errors import DataError
from ..files import write_atomically
from ..machine import refuse_too_large
from ..planning.memory import map_bytes
from ..plots import MOST_CHARACTERS, draw_attention, png
from ..runs.trained import Run

PICTURE = "attention.png"


def write_attention(run: Run, prompt: str, out: Path | None = None) -> Path:
    """Draw the attention weights of `prompt` into `out`, by default into the run's folder; return the picture's path.

    Raises DataError if the prompt is empty, exceeds the context or what a picture can show, or contains characters that
    the model does not know.
    """
    ctx = run.model.config.ctx
    if not prompt:
        raise DataError("The prompt is empty; it needs at least one character.")
    if len(prompt) > min(ctx, MOST_CHARACTERS):
        picture = f"a picture shows at most {MOST_CHARACTERS}"
        limit = f"the model's context is {ctx}" if ctx < MOST_CHARACTERS else picture
        raise DataError(f"The prompt has {len(prompt):,} characters; {limit}.")
    tokens = run.tokenizer.encode(prompt, "The prompt")
    refuse_too_large(map_bytes(run.model.config, len(prompt)), "Drawing this")
    path = out if out is not None else run.folder / PICTURE
    write_atomically(path, png(draw_attention(run.model.attention_maps(tokens), prompt)))
    return path


def run(config: AttentionConfig) -> int:
    """Draw the picture and print its path; return the exit code."""
    trained = Run.load(config.run, config.backend)
    path = write_attention(trained, config.prompt, Path(config.out) if config.out else None)
    print(path)
    return 0
