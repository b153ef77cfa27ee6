"""`bevia-fast plan`: a plan as tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ..config import TrainConfig, token_unit
from ..data.tokenfile import TRAINING_SHARE
from ..errors import ConfigError, counted
from ..files import check_writable
from ..machine import duration, readable
from ..measuring.results import write_json
from ..naming import option
from ..planning.budget import stage_steps
from ..planning.plan import Plan, Way, make_plan
from .arguments import PlanCommand, PlansCommand
from .progress import progress
from .tables import console_beside, make_table, measured, number

PARTS = (
    ("weights", "weights"), ("gradients", "gradients"), ("moments", ""),
    ("kept", "kept for the backward pass"), ("passing", "arrays of one layer"),
    ("scratch", "working memory of kernels"), ("crosscheck", "cross-check"),
)  # fmt: skip


def show_plan(config: TrainConfig, json: str = "") -> int:
    """Make a plan, print it, and write it to a file if requested; return the exit code."""
    check_writable(json)
    with progress() as shown:
        plan = make_plan(config, shown)
    console = console_beside(json)
    console.facts(facts(plan))
    console.show(make_table("", ["memory"], HEADS, memory_rows(plan)))
    console.show(make_table("", ["per step"], HEADS, step_rows(plan)))
    console.say(*notes(plan))
    if json:
        write_json(json, plan.as_object())
    return 0


HEADS = ["without --recompute", "with --recompute"]


def facts(plan: Plan) -> list[tuple[str, str]]:
    config, model = plan.config, plan.config.model
    batches = f"{config.accumulate} x " if config.accumulate > 1 else ""
    return [
        ("text", f"{_text(plan)}; seen {number(plan.epochs)} times"),
        ("model", f"{plan.parameters:,} parameters: {counted(model.layers, 'layer')} of "
                  f"{counted(model.dim, 'channel')} and {counted(model.heads, 'head')}, context {model.ctx:,}, "
                  f"{model.dtype}"),
        ("step", f"{counted(plan.tokens, 'token')}: {batches}{counted(config.batch, 'sequence')} of {model.ctx:,}; "
                 f"{counted(config.steps, 'step')}"),
        *([("stages", ", then ".join(
            f"{counted(count, 'step')} of {stage.batch:,} x {stage.ctx:,}"
            for stage, count in zip(config.stages, stage_steps(config.stages, config.steps), strict=True)
        ))] if config.ctx_schedule else []),
        *([("time", plan.budget.described(config.eval_every))] if plan.budget else []),
        ("kernels", plan.kernels),
        ("disk", f"at most {readable(plan.disk.total)}: checkpoints {readable(plan.disk.checkpoints)}, models "
                 f"{readable(plan.disk.models)}, film {readable(plan.disk.film)}"),
    ]  # fmt: skip


def _text(plan: Plan) -> str:
    return f"{plan.characters:,} {token_unit(plan.config.tokens)}s, {plan.vocabulary:,} distinct"


def memory_rows(plan: Plan) -> list[list[str]]:
    rows = []
    moments = {"adamw": "AdamW's two moments", "muon": "moments of Muon and AdamW"}[plan.config.optimizer]
    for name, title in PARTS:
        sizes = [getattr(way.memory, name) for way in plan.ways]
        if any(sizes):
            rows.append([title or moments, *map(readable, sizes)])
    rows.append(["total", *(readable(way.memory.total) for way in plan.ways)])
    if plan.available is not None:
        rows.append([f"fits into {readable(plan.available)} of free memory",
                     *("yes" if way.fits else "NO" for way in plan.ways)])  # fmt: skip
        largest = [f"{way.largest_ctx:,}" if way.largest_ctx else "none" for way in plan.ways]
        rows.append(["largest --ctx that fits", *largest])
    return rows


def step_rows(plan: Plan) -> list[list[str]]:
    def row(title: str, value: Callable[[Way], str]) -> list[str]:
        return [title, *map(value, plan.ways)]

    return [
        row("GFLOP in matrix products", lambda way: number(way.flops / 1e9)),
        row("expected time", lambda way: duration(way.ms / 1e3)),
        row("expected tokens/s", lambda way: f"{plan.tokens / way.ms * 1e3:,.0f}"),
        row(f"in total, {counted(plan.config.steps, 'step')}",
            lambda way: duration(way.ms / 1e3 * plan.config.steps)),
    ]


def notes(plan: Plan) -> list[str]:
    found = [
        f"Memory excludes the process itself, about {readable(plan.process)}; time excludes evaluations, samples and "
        "saving.",
    ]
    ctx, last = plan.config.model.ctx, plan.characters - int(TRAINING_SHARE * plan.characters)
    if last <= ctx:  # the shorter of the two splits
        found.append(
            f"The text is too short for this context, so train refuses it: its validation split has "
            f"{counted(last, token_unit(plan.config.tokens))} and needs {ctx + 1:,}."
        )
    chosen = plan.ways[plan.config.recompute]
    if chosen.fits is False:
        found.append("This does not fit; train refuses it unless --ignore-memory is given.")
    return found


SEVERAL = ["memory", "step", "tokens/s", "memory R", "step R", "tokens/s R", "fits", "in total", "parameters",
           "run"]
SEVERAL_DROP = ["parameters", "in total", "tokens/s R", "tokens/s", "step R", "memory R"]  # the first of them first


def show_plans(command: PlansCommand) -> int:
    """Make several plans, print a row for each, and write them to a file if requested; return the exit code."""
    json = command.plans[0].json
    check_writable(json)
    plans = []
    with progress() as shown:
        for number_of_it, (each, values) in enumerate(zip(command.plans, command.values, strict=True)):
            what = " ".join(f"{name} {value}" for name, value in zip(command.varying, values, strict=True))
            shown.part(number_of_it, len(command.plans), what)
            plans.append(make_plan(timed(each), shown))
    console = console_beside(json)
    first = plans[0]
    console.facts([("text", _text(first)), ("kernels", first.kernels)])
    rows = [[*values, *plan_cells(plan)] for values, plan in zip(command.values, plans, strict=True)]
    names = [name.removeprefix("--") for name in command.varying]
    columns = SEVERAL if any(plan.budget for plan in plans) or "--steps" in command.varying else SEVERAL[:-1]
    rows = [row[: len(names) + len(columns)] for row in rows]
    console.show(make_table("Plans; R: with --recompute", names, columns, rows, SEVERAL_DROP))
    if first.available is not None:
        console.say(f"fits: into {readable(first.available)} of free memory; R: only with --recompute.")
    if json:
        write_json(json, {"plans": [plan.as_object() for plan in plans]})
    return 0


def plan_cells(plan: Plan) -> list[str]:
    """Return the figures of a plan in the order of SEVERAL."""
    cells = []
    for way in plan.ways:
        cells += [readable(way.memory.total), measured(way.ms), f"{plan.tokens / way.ms * 1e3:,.0f}"]
    usual, recomputed = plan.ways
    fits = "yes" if usual.fits else "R" if recomputed.fits else "NO"
    chosen = plan.ways[plan.config.recompute]
    return [
        *cells, "-" if usual.fits is None else fits, duration(chosen.ms / 1e3 * plan.config.steps),
        f"{plan.parameters:,}", f"{plan.config.steps:,} steps",
    ]  # fmt: skip


def timed(command: PlanCommand) -> TrainConfig:
    """Return the options of a plan, with --hours as minutes. Raises ConfigError for hours that cannot be."""
    if not 0.0 <= command.hours < math.inf:
        raise ConfigError(f"{option('hours')} is {command.hours}; it must be a finite number, at least 0.")
    return replace(command.config, minutes=60.0 * command.hours) if command.hours else command.config


def run(command: PlanCommand | PlansCommand) -> int:
    """Show the plan or plans; return the exit code."""
    if isinstance(command, PlansCommand):
        return show_plans(command)
    return show_plan(timed(command), command.json)
