"""The README's table of speeds, from one real run.

    python bench/report.py --torch-python ~/torch/bin/python     # measure, and write the table into the README
    python bench/report.py --sizes gpt2 long8k --threads 1 2     # other sizes, other numbers of threads
    python bench/report.py --from speed.json                     # the table again, from a run that was kept

Measures a training step of each preset with both backends, and with PyTorch where an interpreter that has it is named;
all take turns, see `bevia_fast/measuring/stopwatch.py`. Takes about ten minutes.
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
    "seed": "--preset seed",
    "laptop": "--preset laptop",
    "baby": "--preset baby",
    "long2k": "--preset long",
    "long8k": "--preset long --ctx 8192 --batch 1",
    "gpt2": "--ctx 64 --dim 768 --layers 12 --heads 12 --batch 4 --vocab 50257",
}


def measure(size: str, threads: Sequence[str], torch_python: str, seconds: float, folder: Path) -> list[StepResult]:
    """One `bevia-fast bench step`, its table on the screen."""
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
    """The results in a file. Raises UserError if they are not of steps."""
    try:
        return [StepResult(**result) for result in read_json(str(path))]
    except TypeError:
        raise UserError(f"{path} holds other results than those of training steps.") from None


def table(results: Sequence[StepResult]) -> str:
    """Markdown: a block of rows for each size, numba's first."""
    first, versions = results[0], {}
    for result in results:
        versions.update(result.versions)
    parts = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"One training step (forward, backward, clipping, AdamW), median, on {first.cpu}, {first.date}; {parts}:",
        "",
        "| model | computed by | threads | ms a step | tokens/s | of the machine's peak | times numba's |",
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
        f"The peak is the most that the vector units reached in the run of each model, in {first.dtype}: "
        f"{', '.join(peaks)}. Competitors took turns; compilation and warm-up are not in the figures. Made by "
        "`bench/report.py`.",
    ]
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _size(result: StepResult) -> str:
    names = ["ctx", "dim", "layers", "heads", "batch", *(["vocab"] if result.vocab != 65 else [])]
    return ", ".join(f"{name} {getattr(result, name)}" for name in names)


def write(readme: Path, text: str) -> None:
    """Put the table at its marker, in place of an earlier one."""
    page = readme.read_text("utf-8")
    if BEGIN not in page:
        raise UserError(f"{readme} has no line {BEGIN}")
    before, after = page.split(BEGIN, 1)
    if END in after:
        after = after.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default="", help="a Python that has PyTorch")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["seed", "laptop", "baby", "long2k"])
    parser.add_argument("--threads", nargs="+", default=[], help="default: one for each physical core")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring for each competitor")
    parser.add_argument("--from", dest="source", type=Path, nargs="+", default=[], metavar="JSON", help="results")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--dry", action="store_true", help="print the table, change nothing")
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
        raise SystemExit(error.returncode) from None  # it has said why


if __name__ == "__main__":
    main()
