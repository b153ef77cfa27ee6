"""`train --preset auto` and `plan --fit`: sizes for this text, this machine and this time."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import STANDARD
from ..errors import UserError
from ..files import check_writable
from ..machine import duration
from ..planning.fitting import Candidate, fit
from . import plan, train
from .arguments import AutoCommand, PlanCommand, parse_with
from .progress import progress
from .tables import FittedConsole, console_beside, make_table

SHOWN = 5  # candidates


def run(command: AutoCommand) -> int:
    """Choose sizes, say why, and plan or train with them; return the exit code."""
    asked = command.asked
    config = plan.timed(asked) if isinstance(asked, PlanCommand) else asked
    if not config.minutes:
        raise UserError("Sizes can only be chosen for a time; give it with --minutes.")
    for name, run in (("--resume", config.resume), ("--init", config.init)):
        if run:
            raise UserError(f"Sizes cannot be chosen with {name}; {run} has its own.")
    if STANDARD in config.data:
        raise UserError("To choose sizes, the text is read twice, which standard input cannot be; name a file.")
    json = asked.json if isinstance(asked, PlanCommand) else ""
    check_writable(json)
    with progress() as shown:
        found = fit(config, shown)
    console = console_beside(json)
    show(console, found)
    chosen = parse_with(command, found[0].config)
    return plan.run(chosen) if isinstance(chosen, PlanCommand) else train.run(chosen)


def show(console: FittedConsole, found: Sequence[Candidate]) -> None:
    """Print the best candidates as a table, and what is chosen and why."""
    rows = []
    for each in found[:SHOWN]:
        model = each.config.model
        rows.append([
            f"{model.dim} x {model.layers}", f"{model.ctx}", f"{each.config.batch}", f"{each.parameters:,}",
            f"{each.budget.steps:,}", duration(each.budget.step), f"{each.tokens / each.parameters:.3g}",
            f"{each.tokens / each.distinct:.3g}", f"{each.loss:.3f}",
        ])  # fmt: skip
    columns = ["ctx", "batch", "parameters", "steps", "step", "chars/param", "epochs", "rank by"]
    console.show(make_table("Sizes for this time; the first is chosen", ["dim x layers"], columns, rows,
                            ["batch", "ctx", "step"]))  # fmt: skip
    console.say(f"chosen   {found[0].described()}.", indent=" " * 9)
    console.say("why      the least loss by the law of Muennighoff et al. 2023 among the sizes that do this in time; "
                "its value ranks them and predicts nothing.", indent=" " * 9)  # fmt: skip
