"""`bevia-fast check`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..agreement.gradients import TOLERANCE, check_gradients
from ..agreement.sweep import DTYPES, CheckRow, check_kernels, kinds
from ..backends import describe_backend, open_backend
from ..config import BackendName, CheckConfig, ModelConfig, OptimizerName
from ..errors import ConfigError, counted, shown
from ..kernels.contract import OPERATIONS
from ..measuring.own_kernel import load_file
from ..training.compiling import two_compilers
from ..training.twins import check_training
from .sheet import Sheet
from .tables import FittedConsole, make_table

OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


def run(config: CheckConfig) -> int:
    """Compare the backends on all cases and in training; return the exit code."""
    console = FittedConsole()
    if config.gradients:
        return run_gradients(config, console)
    numba, numpy = open_backend("numba", config.threads), open_backend("numpy")
    console.say(f"{describe_backend(numba)}  compared with  {describe_backend(numpy)}")
    rows = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    usual = ModelConfig(vocab_size=65, dropout=0.1, positions="rotary")
    models = [*(replace(usual, dtype=dtype) for dtype in DTYPES), replace(usual, precision="bf16")]
    with bar as progress, two_compilers(models, optimizer="muon"):
        of_kernels = sum(len(kinds(operation)) for operation in OPERATIONS)
        task = progress.add_task("kernels", total=of_kernels + 3 * len(models))
        for row in check_kernels(numba, numpy, config.quick):
            rows.append(row)
            progress.update(task, advance=1, description=row.what)
        progress.update(task, description="training")
        for dtype in (*DTYPES, "bf16"):
            for optimizer in OPTIMIZERS:
                for row in check_training(numba, numpy, dtype, 10 if config.quick else 50, optimizer):
                    rows.append(row)
                    progress.update(task, advance=1)
    console.show(check_table(rows))
    failed = [row for row in rows if not row.ok]
    if failed:
        console.print(f"{len(failed)} of {len(rows)} checks failed:")
        for row in failed:
            console.print(f"  {row.dtype} {row.worst}", soft_wrap=True)
        return 1
    console.print(f"All {len(rows)} checks passed.")
    return 0


def run_gradients(config: CheckConfig, console: FittedConsole) -> int:
    """Compare the backward passes of a file, or of a backend, with finite differences; return the exit code."""
    if config.gradients in get_args(BackendName):
        functions: Any = open_backend(config.gradients, config.threads)  # type: ignore[arg-type]  # it is a name of one
    else:
        if not Path(config.gradients).is_file():
            raise ConfigError(f"There is no file {shown(config.gradients)}.")
        functions = load_file(config.gradients)
    found = check_gradients(functions)
    rows = [
        [one.case, one.tensor, f"{list(one.index)}", f"{one.value_a:.6g}", f"{one.value_b:.6g}", f"{one.error:.1e}",
         "ok" if one.ok else "WRONG"]
        for one in found
    ]  # fmt: skip
    title = "Largest difference of each gradient from finite differences, relative to the largest element"
    columns = ["at", "gradient", "finite difference", "error", ""]
    console.show(make_table(title, ["pair", "array"], columns, rows, ["at", "finite difference", "gradient"]))
    failed = sum(not one.ok for one in found)
    said = f"{counted(len(found), 'gradient')} compared: {failed or 'none'} {'is' if failed == 1 else 'are'} wrong"
    console.say(f"{said}; an error of at most {TOLERANCE:g} is rounding.")
    return 1 if failed else 0


def check_table(rows: list[CheckRow]) -> Sheet:
    """Return the table of errors."""
    cells = [
        [row.what, row.dtype, str(row.count), f"{row.worst.error:.1e}", f"{row.worst.tolerance:.1e}",
         f"{row.share:.1%}", "ok" if row.ok else "FAILED"]
        for row in rows
    ]  # fmt: skip
    return make_table(
        "Largest error of each kernel, relative to the largest element", ["what", "dtype"],
        ["compared", "error", "tolerance", "share", ""], cells, ["compared", "share", "tolerance", "error"],
    )  # fmt: skip
