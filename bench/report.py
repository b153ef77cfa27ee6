"""Measure the table of speeds in the README.

    python bench/report.py --torch-python ~/torch/bin/python     # measure, and write the table into the README
    python bench/report.py --sizes gpt2 long8k --threads 1 2     # other sizes, other numbers of threads
    python bench/report.py --from speed.json                     # write the table from the results of an earlier run

This times a training step of each size with both backends, and with PyTorch if --torch-python names an interpreter that
has it. They take turns, see `bevia_fast/measuring/stopwatch.py`. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bevia_fast.errors import UserError
from bevia_fast.measuring.results import StepResult, read_json

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- speed table -->", "<!-- end of the speed table -->"
NAMES = {
    "numba": "bevia-fast, numba", "numba --recompute": "bevia-fast, numba, --recompute", "numpy": "bevia-fast, numpy",
    "torch-eager": "PyTorch, eager", "torch-compile": "PyTorch, torch.compile", "torch-bf16": "PyTorch, bfloat16",
}  # fmt: skip
SIZES = {
    "tiny": "--preset tiny",
    "laptop": "--preset laptop",
    "baby": "--preset baby",
    "long2k": "--preset long",
    "long8k": "--preset long --ctx 8192 --batch 1",
    "gpt2": "--ctx 64 --dim 768 --layers 12 --heads 12 --batch 4 --vocab 50257",
}


def measure(size: str, threads: Sequence[str], torch_python: str, seconds: float, folder: Path) -> list[StepResult]:
    """Run `bevia-fast bench step` for one size, which prints its table, and return the results."""
    path = folder / f"{size}.json"
    command = [sys.executable, "-m", "bevia_fast", "bench", "step", *SIZES[size].split(), "--seconds", str(seconds),
               "--json", str(path)]  # fmt: skip
    if threads:
        command += ["--threads", *threads]
    if torch_python:
        command += ["--peer", "torch", "--torch-python", torch_python]
    subprocess.run(command, check=True)
    return read(path)


def read(path: Path) -> list[StepResult]:
    """Return the results in a file. Raises UserError if they are not results of training steps."""
    try:
        return [StepResult(**result) for result in read_json(str(path))]
    except TypeError:
        raise UserError(f"{path} holds results of other measurements than training steps.") from None


def table(results: Sequence[StepResult]) -> str:
    """Return the table in Markdown: a block of rows per size, with numba first."""
    first, versions = results[0], {}
    for result in results:
        versions.update(result.versions)
    parts = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"One training step (forward, backward, clipping, AdamW), median, on {first.cpu}, {first.date}; {parts}:",
        "",
        "| model | computed by | threads | ms per step | tokens/s | of the machine's peak | time relative to numba |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    peaks: dict[str, None] = {}
    for size in dict.fromkeys(map(_size, results)):
        own = sorted((r for r in results if _size(r) == size), key=lambda r: (r.threads, list(NAMES).index(r.backend)))
        numba = {r.threads: r.ms_median for r in own if r.backend == "numba"}
        for number, r in enumerate(own):
            times = f"{r.ms_median / numba[r.threads]:.1f}" if r.threads in numba else ""
            lines.append(
                f"| {size if number == 0 else ''} | {NAMES[r.backend]} | {r.threads} | {_ms(r.ms_median)} "
                f"| {r.tokens_per_s:,.0f} | {r.fraction_of_peak:.0%} | {times} |"
            )
            peaks[f"{r.peak_gflops:.0f} GFLOP/s with {r.threads} thread{'s' * (r.threads > 1)}"] = None
    lines += [
        "",
        f"The peak is the highest rate of the vector units measured in the run of each model, in {first.dtype}: "
        f"{', '.join(peaks)}. Competitors took turns; compilation and warm-up do not count. Made by "
        "`bench/report.py`.",
    ]
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _size(result: StepResult) -> str:
    names = ["ctx", "dim", "layers", "heads", "batch", *(["vocab"] if result.vocab != 65 else [])]
    return ", ".join(f"{name} {getattr(result, name)}" for name in names)


def write(readme: Path, text: str) -> None:
    """Write the table at its marker, and replace an earlier one. Raises UserError if there is no marker."""
    page = readme.read_text("utf-8")
    if BEGIN not in page:
        raise UserError(f"{readme} has no line {BEGIN}.")
    before, after = page.split(BEGIN, 1)
    if END in after:
        after = after.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default="", help="a Python interpreter that has PyTorch")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "laptop", "baby", "long2k"])
    parser.add_argument("--threads", nargs="+", default=[], help="numbers of threads (default: one per physical core)")
    parser.add_argument("--seconds", type=float, default=5.0, help="minimum time to measure each competitor")
    parser.add_argument(
        "--from", dest="source", type=Path, nargs="+", default=[], metavar="JSON",
        help="use the results in these files instead of measuring",
    )  # fmt: skip
    parser.add_argument("--readme", type=Path, default=README, help="the file to write the table into")
    parser.add_argument("--dry", action="store_true", help="print the table without writing it")
    arguments = parser.parse_args()
    results: list[StepResult] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for path in arguments.source:
                results += read(path)
            for size in () if arguments.source else arguments.sizes:
                results += measure(size, arguments.threads, arguments.torch_python, arguments.seconds, Path(folder))
        text = table(results)
        print(text)
        if not arguments.dry:
            write(arguments.readme, text)
    except UserError as error:
        raise SystemExit(str(error)) from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None  # the command has printed the reason


if __name__ == "__main__":
    main()
