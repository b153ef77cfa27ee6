"""Written files are whole, and as other programs' files are."""

from __future__ import annotations

from pathlib import Path

from bevia_fast import files


def test_new_files_have_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
