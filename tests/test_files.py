"""Written files are complete, and like those of other programs."""

from __future__ import annotations

from pathlib import Path

from bevia_fast import files


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
