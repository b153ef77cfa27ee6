"""`bevia-fast attention`: what each layer and head of a trained model makes of a prompt."""

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
    """Draw the attention maps of `prompt` into `out`, or into the run's folder; returns the picture's path.

    Raises DataError for a prompt that is empty, longer than the context or than a picture can show, or that has
    characters the model never saw.
    """
    ctx = run.model.config.ctx
    if not prompt:
        raise DataError("The prompt is empty; attention needs at least one character.")
    if len(prompt) > min(ctx, MOST_CHARACTERS):
        limit = f"the model's context is {ctx}" if ctx < MOST_CHARACTERS else f"a picture shows up to {MOST_CHARACTERS}"
        raise DataError(f"The prompt has {len(prompt):,} characters; {limit}.")
    tokens = run.tokenizer.encode(prompt, "The prompt")
    refuse_too_large(map_bytes(run.model.config, len(prompt)), "Drawing this")
    path = out if out is not None else run.folder / PICTURE
    write_atomically(path, png(draw_attention(run.model.attention_maps(tokens), prompt)))
    return path


def run(config: AttentionConfig) -> int:
    """Draw the maps, print where they are; returns the exit code."""
    trained = Run.load(config.run, config.backend)
    path = write_attention(trained, config.prompt, Path(config.out) if config.out else None)
    print(path)
    return 0
