"""`bevia-fast check`."""

from __future__ import annotations

from typing import get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..agreement.sweep import DTYPES, CheckRow, check_kernels
from ..backends import describe_backend, open_backend
from ..config import CheckConfig, ModelConfig, OptimizerName
from ..kernels.contract import OPERATIONS
from ..training.compiling import two_compilers
from ..training.twins import check_training
from .sheet import Sheet
from .tables import FittedConsole, make_table

OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


def run(config: CheckConfig) -> int:
    """Compare the backends on all cases and in training; return the exit code."""
    console = FittedConsole()
    numba, numpy = open_backend("numba", config.threads), open_backend("numpy")
    console.say(f"{describe_backend(numba)}  compared with  {describe_backend(numpy)}")
    rows = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    models = [ModelConfig(vocab_size=65, dropout=0.1, dtype=dtype, positions="rotary") for dtype in DTYPES]
    with bar as progress, two_compilers(models, optimizer="muon"):
        task = progress.add_task("kernels", total=2 * len(OPERATIONS) + 3 * len(DTYPES))
        for row in check_kernels(numba, numpy, config.quick):
            rows.append(row)
            progress.update(task, advance=1, description=row.what)
        progress.update(task, description="training")
        for dtype in DTYPES:
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
