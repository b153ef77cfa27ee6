"""`bevia-fast runs`: a table of the runs in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..config import RunsConfig, token_unit
from ..errors import counted, shown
from ..files import check_writable, write_text
from ..runs.listing import Listed, list_runs
from .sheet import Sheet
from .tables import console_beside, make_table


def run(config: RunsConfig) -> int:
    """Print the table, and what is wrong with the folders that are not in it; return the exit code."""
    check_writable(config.json)
    found = list_runs(config.folder, config.sort)
    console = console_beside(config.json)
    runs = [one for one in found if one.curves is not None]
    if runs:
        console.show(run_table(runs))
    for one in found:
        if one.curves is None:
            console.say(f"{shown(one.name, 60)} cannot be listed: {one.problem}")
    if not found:
        console.say(f"There are no runs in {config.folder}.")
    if config.json:
        write_text(config.json, json.dumps([one.about() for one in found], indent=1) + "\n")
    return 0


def run_table(runs: Sequence[Listed]) -> Sheet:
    """Return the table of readable runs, in their order."""
    rows = []
    for one in runs:
        assert one.curves is not None
        config, best = one.curves.config, one.curves.best()
        model, unfinished, bits = config.model, one.steps < config.steps, one.curves.bits()
        rows.append([
            shown(one.name, 60), f"{one.parameters:,}", f"{model.ctx:,}", f"{model.dim:,}", f"{model.layers:,}",
            f"{model.heads:,}", f"{config.batch:,}",
            f"{one.steps:,}{f' of {config.steps:,}' if unfinished else ''}", f"{best[0]:.4f}" if best else "-",
            "-" if bits is None else f"{bits:.4f}", f"{best[1]:,}" if best else "-", f"{one.minutes:.1f}",
            f"{one.date:%Y-%m-%d %H:%M}",
        ])  # fmt: skip
    columns = ["parameters", "ctx", "dim", "layers", "heads", "batch", "steps", "best loss", "bits per byte",
               "at step", "minutes", "date"]  # fmt: skip
    units = {token_unit(one.curves.config.tokens) for one in runs if one.curves}
    unit = units.pop() if len(units) == 1 else "token"
    title = counted(len(runs), "run") + f"; the loss is the validation loss in nats per {unit}"
    droppable = ["date", "batch", "heads", "at step", "parameters", "ctx", "layers", "dim", "bits per byte"]
    return make_table(title, ["run"], columns, rows, droppable)
