"""The README's table of speeds, from one real run.

    python bench/report.py --torch-python ~/torch/bin/python     # measure, and write the table into the README
    python bench/report.py --from speed.json                     # the table again, from a run that was kept

Measures a training step of the seed and the laptop preset with both backends, and with PyTorch where an interpreter
that has it is named; all take turns, see `bevia_fast/timing.py`. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bevia_fast.bench_results import read_json

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- speed table -->", "<!-- end of the speed table -->"
NAMES = {
    "numba": "bevia-fast, numba", "numpy": "bevia-fast, numpy", "torch-eager": "PyTorch, eager",
    "torch-compile": "PyTorch, torch.compile", "torch-bf16": "PyTorch, bfloat16",
}  # fmt: skip


def measure(preset: str, torch_python: str, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """One `bevia-fast bench step`, its table on the screen."""
    path = folder / f"{preset}.json"
    command = [sys.executable, "-m", "bevia_fast", "bench", "step", "--preset", preset, "--seconds", str(seconds),
               "--json", str(path)]  # fmt: skip
    if torch_python:
        command += ["--peer", "torch", "--torch-python", torch_python]
    subprocess.run(command, check=True)
    return read_json(str(path))


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a block of rows for each size, numba's first."""
    first, versions = results[0], {}
    for result in results:
        versions.update(result["versions"])
    parts = ", ".join(f"{name} {number}" for name, number in versions.items())
    threads = f"{first['threads']} thread{'s' if first['threads'] != 1 else ''}"
    lines = [
        f"One training step (forward, backward, clipping, AdamW), median, on {first['cpu']} with {threads}, "
        f"{first['date']}; {parts}:",
        "",
        "| model | computed by | ms a step | tokens/s | of the machine's peak | times numba's |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for size in dict.fromkeys(_size(result) for result in results):
        own = sorted((r for r in results if _size(r) == size), key=lambda r: list(NAMES).index(r["backend"]))
        fastest = next((r["ms_median"] for r in own if r["backend"] == "numba"), own[0]["ms_median"])
        for number, result in enumerate(own):
            lines.append(
                f"| {size if number == 0 else ''} | {NAMES[result['backend']]} | {result['ms_median']:.3g} "
                f"| {result['tokens_per_s']:,.0f} | {result['fraction_of_peak']:.0%} "
                f"| {result['ms_median'] / fastest:.1f} |"
            )
    peak = first["peak_gflops"]
    lines += [
        "",
        f"The peak is what the vector units reached in the same run, {peak:.0f} GFLOP/s in {first['dtype']}. "
        "Competitors took turns; compilation and warm-up are not in the figures. Made by `bench/report.py`.",
    ]
    return "\n".join(lines)


def _size(result: dict[str, Any]) -> str:
    return f"ctx {result['ctx']}, dim {result['dim']}, layers {result['layers']}, batch {result['batch']}"


def write(readme: Path, text: str) -> None:
    """Put the table at its marker, in place of an earlier one."""
    page = readme.read_text("utf-8")
    if BEGIN not in page:
        raise SystemExit(f"{readme} has no line {BEGIN}")
    before, after = page.split(BEGIN, 1)
    if END in after:
        after = after.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default="", help="a Python that has PyTorch")
    parser.add_argument("--presets", nargs="+", default=["seed", "laptop"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring for each competitor")
    parser.add_argument("--from", dest="source", nargs="+", default=[], metavar="JSON", help="results to be shown")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--dry", action="store_true", help="print the table, change nothing")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.source:
            results += read_json(path)
        for preset in () if arguments.source else arguments.presets:
            results += measure(preset, arguments.torch_python, arguments.seconds, Path(folder))
    text = table(results)
    print(text)
    if not arguments.dry:
        write(arguments.readme, text)


if __name__ == "__main__":
    main()
