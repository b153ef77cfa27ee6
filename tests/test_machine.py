"""What this package finds out about the machine it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevia_fast.machine import available_bytes


@pytest.mark.parametrize(
    ("version", "most", "used", "kept"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_the_limit_of_a_container_bounds_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, most: str, used: str, kept: str
) -> None:
    monkeypatch.setattr("bevia_fast.machine.CGROUP", tmp_path)
    folder = tmp_path / version
    folder.mkdir(exist_ok=True)
    (folder / most).write_text("1000000\n")
    (folder / used).write_text("990000\n")
    assert available_bytes() == 10_000
    (folder / "memory.stat").write_text(f"anon 90000\n{kept} 800000\nactive_file 100000\n")  # file cache, as of a text
    assert available_bytes() == 810_000
    (folder / most).write_text("max\n" if not version else "9223372036854771712\n")
    assert (available_bytes() or 1 << 40) > 1 << 20  # the machine's
