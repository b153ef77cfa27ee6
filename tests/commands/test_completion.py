"""The scripts with which shells complete commands and options: they are complete, and a shell can run them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bevia_fast.commands.arguments import COMMANDS
from bevia_fast.commands.completion import whole_tree
from bevia_fast.commands.fields import command_options
from bevia_fast.commands.main import main
from bevia_fast.measuring.options import BENCHES, PROFILES, ProfileKernelConfig


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def completed(path: Path, line: str) -> set[str]:
    """Return what bash offers for the last word of a line."""
    words = line.split(" ")
    array = " ".join(f"'{word}'" for word in words)
    code = (
        f"source '{path}'; spec=$(complete -p bevia-fast); name=${{spec#*-F }}; name=${{name%% *}}\n"
        f"COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}\n"
        f"$name bevia-fast '{words[-1]}' '{words[-2]}' 2>&1; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return {word.strip() for word in done.stdout.split("\n")} - {""}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_every_command_and_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bevia-fast"
    path.write_text(script("bash", capsys))
    assert completed(path, "bevia-fast ") >= {*COMMANDS, "help"}
    assert completed(path, "bevia-fast pl") == {"plan", "playbook", "plot"}
    assert completed(path, "bevia-fast lab ") >= {"list", "residual", "scale-large"}
    assert completed(path, "bevia-fast bench ") >= set(BENCHES)
    assert completed(path, "bevia-fast profile ") >= {*PROFILES, "all", "attention", "attention_forward"}
    assert completed(path, "bevia-fast help ") >= set(COMMANDS)
    lines = {name: kind for name, kind in COMMANDS.items() if name not in ("bench", "profile", "lab")}
    lines |= {f"bench {name}": kind for name, kind in BENCHES.items()}
    lines |= {f"profile {name}": kind for name, kind in {**PROFILES, "attention": ProfileKernelConfig}.items()}
    lines |= {"lab residual": COMMANDS["lab"]}
    for line, kind in lines.items():
        wanted = {name for name, option in command_options(kind).items() if not option.positional}
        assert completed(path, f"bevia-fast {line} --") >= wanted, line
    assert completed(path, "bevia-fast train --preset ") >= {"tiny", "laptop", "baby", "long"}
    assert completed(path, "bevia-fast completion ") >= {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    for name in (*COMMANDS, *BENCHES, *PROFILES, "attention_forward"):
        assert re.search(rf"\b{name}\b", text), name
    for kind in (*COMMANDS.values(), *BENCHES.values()):
        for name, option in command_options(kind).items():
            assert option.positional or name in text or f"-l {name[2:]}" in text, name


def test_the_tree_has_every_command() -> None:
    assert len(whole_tree().__args__) == len(COMMANDS) + 1
