"""`bevia-fast plot`: the losses of several runs in one picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from ..config import PlotConfig, picture_format, token_unit
from ..errors import ConfigError, escaped
from ..files import check_writable
from ..naming import option
from ..runs.listing import Curves
from .tables import console_beside, write_picture

PICTURE = "losses.png"


def run(config: PlotConfig) -> int:
    """Draw the picture and print its path; return the exit code."""
    check_writable(config.out)
    if not config.runs:
        raise ConfigError("plot needs the folders of the runs to draw, such as runs/1 runs/2.")
    found = [(path, Curves.read(path)) for path in config.runs]
    for index, (path, one) in enumerate(found):
        if any(os.path.samefile(one.folder, other.folder) for _, other in found[:index]):
            raise ConfigError(f"{escaped(path)} is named twice.")
    first = found[0][1].folder
    path = config.out or str((first if len(found) == 1 else first.parent) / PICTURE)
    check_writable(path)

    from ..canvas import rendered
    from ..comparing import Curve, draw_runs
    from ..plots import about

    unit, scales = _unit(config, [one for _, one in found])
    curves = [
        Curve(
            str(one.folder), one.over(config.x), _scaled([record["loss"] for record in one.records], scale),
            _scaled([record["val_loss"] for record in one.records], scale),
        )
        for (_, one), scale in zip(found, scales, strict=True)
    ]  # fmt: skip
    for curve in curves:
        if not (curve.points(curve.training) or curve.points(curve.validation)):
            raise ConfigError(f"{escaped(curve.name)} has no losses yet.")
    subtitle = ""
    if len(found) == 1:
        [(_, one)] = found
        subtitle = about(one.folder, one.config.model, one.changed().date())
    picture = rendered(draw_runs(curves, config.x, subtitle, unit), picture_format(path))
    write_picture(console_beside(path), path, picture)
    return 0


def _unit(config: PlotConfig, runs: Sequence[Curves]) -> tuple[str, list[float]]:
    """Return the unit of the losses, and what those of each run are multiplied by.

    Raises ConfigError for bits per byte of a run that does not know how many bytes its tokens have.
    """
    different = len({one.config.tokens for one in runs}) > 1
    if config.y == "nats" or not (config.y or different):
        units = {token_unit(one.config.tokens) for one in runs}
        return f"nats per {units.pop() if len(units) == 1 else 'token'}", [1.0] * len(runs)
    scales = []
    for one in runs:
        size = one.bytes_per_token
        if size is None:
            why = "because the runs have different tokens" if different and not config.y else "as asked"
            raise ConfigError(
                f"{escaped(str(one.folder))} has no evaluation in bits per byte, in which the losses are drawn {why}; "
                f"{option('y', 'nats')} draws them in nats per token."
            )
        scales.append(1.0 / (math.log(2) * size))
    return "bits per byte", scales


def _scaled(losses: Sequence[float | None], scale: float) -> list[float | None]:
    return [None if loss is None else loss * scale for loss in losses]
