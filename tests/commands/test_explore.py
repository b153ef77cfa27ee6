"""`bevia-fast explore`: the file, the browser, the server, and what it refuses."""

from __future__ import annotations

import http.client
import io
import re
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from helpers import in_a_process
from small_runs import tiny_config

from bevia_fast import Run, train
from bevia_fast.commands.main import main
from bevia_fast.explorer import exploring
from bevia_fast.explorer.serving import Server

pytestmark = pytest.mark.usefixtures("quick_runs")
PROMPT = ["--prompt", "the cat"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_config(tmp_path_factory.mktemp("explored"), film=2))


@pytest.fixture
def browsers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that are opened."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) is None)
    return opened


def test_the_page_is_written_into_the_run(run: Run, capsys: pytest.CaptureFixture[str], browsers: list[str]) -> None:
    assert main(["explore", str(run.folder), *PROMPT]) == 0
    path = run.folder / "explorer.html"
    assert re.fullmatch(rf"{re.escape(str(path))}  \([\d.]+ kB\)\n", capsys.readouterr().out)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert browsers == []


def test_it_is_opened(run: Run, tmp_path: Path, browsers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", str(run.folder), *PROMPT, "--out", "a page.html", "--open"]) == 0
    assert browsers == [(tmp_path / "a page.html").as_uri()]


def test_there_is_no_browser(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    path = tmp_path / "page.html"
    assert main(["explore", str(run.folder), *PROMPT, "--out", str(path), "--open"]) == 0
    assert f"note: no browser was found; open {path.as_uri()} in one." in " ".join(capsys.readouterr().out.split())


def test_standard_streams(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the dog\n")))
    assert main(["explore", str(run.folder), "--prompt", "-", "the cat", "--out", "-"]) == 0
    output = capsysbinary.readouterr()
    assert output.out.startswith(b"<!doctype html>")
    assert output.err == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "é"], "The prompt contains 'é' (character 1), which the model does not know; "),
        (["--prompt", "the cat sat on"], "The prompt has 14 characters; the model's context is 8."),
        (["--prompt", "-", "-"], "Only one --prompt can be -, which stands for standard input."),
        (["--out", "missing/page.html"], "Cannot write missing/page.html: there is no folder missing."),
    ],
)
def test_refusals(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in words else ["--out", "page.html"]
    assert main(["explore", str(run.folder), *words, *out]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"bevia-fast: error: {message}")
    assert output.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_too_large(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bevia_fast.commands.explore.LARGEST", 1000)
    path = tmp_path / "page.html"
    assert main(["explore", str(run.folder), *PROMPT, "--out", str(path)]) == 2
    assert re.fullmatch(
        r"bevia-fast: error: The page would have [\d.]+ kB; at most 1\.0 kB open quickly\. "
        r"What helps: --serve, which shows a page of any size\.\n", capsys.readouterr().err,
    )  # fmt: skip
    assert not path.exists()
    assert exploring.LARGEST == 8_000_000


# -------------------------------------------------------------------------------------------------------------- serving


def ask(server: Server, path: str = "/", method: str = "GET", host: str = "") -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{server.port}"})
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def test_a_page_is_served_to_this_machine_only() -> None:
    with Server("<p>é</p>") as server:
        assert server.address == f"http://127.0.0.1:{server.port}/"
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            status, body, headers = ask(server)
            assert (status, body) == (200, "<p>é</p>".encode())
            assert headers["Content-Type"] == "text/html; charset=utf-8"
            assert ask(server, "/?x=1", host=f"localhost:{server.port}")[:2] == (200, body)
            assert ask(server, method="HEAD")[:2] == (200, b"")
            assert ask(server, "/etc/passwd")[0] == 404
            assert ask(server, host=f"evil.example:{server.port}")[0] == 403
            assert ask(server, method="POST")[0] == 501
        finally:
            server.stop()
            thread.join()


def test_serve_ends_with_control_c(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], browsers: list[str]
) -> None:
    """A page of any size; no file is written without --out."""
    monkeypatch.setattr("bevia_fast.commands.explore.LARGEST", 1000)
    served: list[tuple[int, bytes, Any]] = []

    def interrupted(server: Server) -> None:
        thread = threading.Thread(target=server._server.serve_forever)
        thread.start()
        served.append(ask(server))
        server.stop()
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "run", interrupted)
    (run.folder / "explorer.html").unlink(missing_ok=True)
    assert main(["explore", str(run.folder), *PROMPT, "--serve", "--open"]) == 0
    assert not (run.folder / "explorer.html").exists()
    [(status, body, _)] = served
    assert status == 200
    assert body.startswith(b"<!doctype html>")
    line = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/  \([\d.]+ kB; Ctrl-C ends it\)", line)
    assert browsers == [line.split()[0]]


def test_numpy_gets_one_thread(run: Run, tmp_path: Path) -> None:
    """Its products are small: on a busy machine, two threads take ten times as long as one. Numba keeps its own."""
    script = """
import json, os, sys
from bevia_fast.commands import main
found = {}
main._MODULES = dict.fromkeys(main._MODULES, "explore")
class Module:
    @staticmethod
    def run(config):
        found[config.backend] = os.environ.get("OPENBLAS_NUM_THREADS")
        return 0
main.importlib.import_module = lambda *names: Module
os.environ.pop("OPENBLAS_NUM_THREADS", None)
for backend in ("numba", "numpy"):
    assert main.main(["explore", sys.argv[1], "--backend", backend]) == 0
print(json.dumps(found))
"""
    assert in_a_process(script, str(run.folder)) == {"numba": None, "numpy": "1"}
