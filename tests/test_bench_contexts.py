"""`bench contexts`: memory and time while the context grows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bevia_fast import cli
from bevia_fast.bench_config import BenchContextsConfig
from bevia_fast.bench_plots import draw_contexts
from bevia_fast.bench_results import ContextResult
from bevia_fast.errors import ConfigError
from bevia_fast.plots import png


def test_points_are_measured_and_what_takes_too_long_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "bench contexts --backend numpy --values 64 8 100000 --dim 8 --layers 1 --seconds 0.01 --limit 5"
    assert cli.main([*line.split(), "--json", "found.json"]) == 0
    out = capsys.readouterr().out
    assert "Left out: numpy from ctx 100,000 on: it needs about" in out or "on: a step would take" in out
    found = json.loads(Path("found.json").read_text())
    assert [point["ctx"] for point in found] == [8, 64]
    for point in found:
        assert point["ms_per_token"] == pytest.approx(point["ms_median"] / point["ctx"])
        assert 0 <= point["over_bare_mb"] < point["peak_rss_mb"]
    assert Path("contexts.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_takes_any_number_of_points() -> None:
    for count in (1, 8):
        points = [
            ContextResult(name, 2, "float32", 512 << p, 128, 2, 2, 1, 65, 1.0, 0.01 * 2**p, 1e5, 10.0, 3, 300.0, 2.0**p)
            for name in ("numpy", "numba", "numba --recompute", "torch-eager") for p in range(count)
        ]  # fmt: skip
        assert png(draw_contexts(points)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"threads": (1, 2)}, "one number of --threads"), ({"limit": 0.0}, "--limit"), ({"values": (0,)}, "--values")],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchContextsConfig(**options)  # type: ignore[arg-type]
