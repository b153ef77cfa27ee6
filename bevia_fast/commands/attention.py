"""`bevia-fast attention`: the attention weights of layers and heads of a trained model for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from ..config import STANDARD, AttentionConfig, picture_format
from ..errors import DataError
from ..files import check_writable, read_standard_input
from ..machine import refuse_too_large
from ..planning.memory import map_bytes
from ..runs.choosing import chosen_model, remark_on
from ..runs.trained import Run
from .tables import console_beside, write_picture

PICTURE = "attention.png"


def attention_picture(
    run: Run, prompt: str, kind: str = "png", layers: Sequence[int] = (), heads: Sequence[int] = (),
    day: date | None = None,
) -> bytes:  # fmt: skip
    """Return a picture of the attention weights of `prompt`, as the bytes of a file in the format `kind`.

    `day`: the date of the run. `layers` and `heads` are those to draw, counted from 0; by default all. Raises DataError
    if there is no such layer or head, or if the prompt is empty, exceeds the context or what a picture can show, or
    contains characters that the model does not know.
    """
    from ..canvas import rendered
    from ..plots import MOST_CHARACTERS, about, draw_attention

    ctx = run.model.config.ctx
    if not prompt:
        raise DataError("The prompt is empty; it needs at least one character.")
    tokens = run.tokenizer.encode(prompt, "The prompt")
    if tokens.size > min(ctx, MOST_CHARACTERS):
        picture = f"a picture shows at most {MOST_CHARACTERS}"
        limit = f"the model's context is {ctx}" if ctx < MOST_CHARACTERS else picture
        raise DataError(f"The prompt has {tokens.size:,} {run.tokenizer.unit}s; {limit}.")
    refuse_too_large(map_bytes(run.model.config, tokens.size), "Drawing this")
    labels = [run.tokenizer.label(token) for token in tokens.tolist()]
    subtitle = about(run.folder, run.model.config, day)
    return rendered(draw_attention(run.model.attention_maps(tokens), labels, subtitle, layers, heads), kind)


def run(config: AttentionConfig) -> int:
    """Draw the picture and print its path; return the exit code."""
    check_writable(config.out)
    trained = Run.load(config.run, config.backend, checkpoint=config.checkpoint)
    prompt = read_standard_input("The prompt") if config.prompt == STANDARD else config.prompt
    path = config.out or str(trained.folder / PICTURE)
    day = date.fromtimestamp(chosen_model(config.run, config.checkpoint).stat().st_mtime)
    picture = attention_picture(trained, prompt, picture_format(path), config.layer, config.head, day)
    console = console_beside(path)
    remark = remark_on(config.run, config.checkpoint, trained.step)
    if remark:
        console.say(f"note: {remark}")
    write_picture(console, path, picture)
    return 0
