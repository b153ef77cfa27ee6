"""Written files are complete, and like those of other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bevia_fast import files


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_on_macos_the_drives_own_cache_is_flushed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    synced: list[int] = []

    class Control:
        F_FULLFSYNC = 51

        @staticmethod
        def fcntl(handle: int, command: int) -> None:
            asked.append((handle, command))

    monkeypatch.setattr(files, "_control", Control)
    monkeypatch.setattr(os, "fsync", synced.append)
    files.write_atomically(tmp_path / "file", b"x")
    assert [command for _, command in asked] == [51, 51]  # the file and its folder
    assert not synced

    def refuse(handle: int, command: int) -> None:
        raise OSError(45, "Operation not supported")

    monkeypatch.setattr(Control, "fcntl", staticmethod(refuse))
    files.write_atomically(tmp_path / "file", b"x")
    assert len(synced) == 2


def test_windows_has_neither_fcntl_nor_folders_to_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(files, "_control", None)
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "name", "nt")
    files.sync_folder(tmp_path)
    assert not synced
    files.flush(7)
    assert synced == [7]


def test_a_file_that_may_not_be_examined_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert files.is_file(path)
    assert not files.is_folder(path)
    assert files.is_folder(tmp_path)
    assert not files.mode(tmp_path / "nothing")
    assert not files.mode(path / "below a file")

    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", forbidden)
    for ask in (files.mode, files.is_file, files.is_folder):
        with pytest.raises(PermissionError):
            ask(path)


def test_a_file_and_then_its_name_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loss of power, the name leads to the whole new file or to the old one."""
    events: list[str] = []
    replace = os.replace

    def fsync(handle: int) -> None:
        events.append("folder" if os.path.samestat(os.fstat(handle), os.stat(tmp_path)) else "file")

    def renamed(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(files, "_control", None)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    files.write_atomically(tmp_path / "file", b"x")
    assert events == ["file", "rename", "folder"]
