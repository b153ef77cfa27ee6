"""`bevia-fast plot`: the losses of several runs in one picture."""

from __future__ import annotations

import os

from ..config import PlotConfig, picture_format
from ..errors import ConfigError, escaped
from ..files import check_writable
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

    curves = [
        Curve(
            str(one.folder), one.over(config.x), [record["loss"] for record in one.records],
            [record["val_loss"] for record in one.records],
        )
        for _, one in found
    ]  # fmt: skip
    for curve in curves:
        if not (curve.points(curve.training) or curve.points(curve.validation)):
            raise ConfigError(f"{escaped(curve.name)} has no losses yet.")
    subtitle = ""
    if len(found) == 1:
        [(_, one)] = found
        subtitle = about(one.folder, one.config.model, one.changed().date())
    write_picture(console_beside(path), path, rendered(draw_runs(curves, config.x, subtitle), picture_format(path)))
    return 0
