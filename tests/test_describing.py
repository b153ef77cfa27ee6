"""What help() says about options, and tables for notebooks."""

from __future__ import annotations

import io
import pydoc
import re
import subprocess
import sys
from dataclasses import dataclass, fields

import pytest

import bevia_fast
from bevia_fast.describing import describe_fields, field_docstrings, table


@pytest.mark.parametrize("name", ["TrainConfig", "ModelConfig", "GenerateConfig", "Run"])
def test_help_explains_each_option(name: str) -> None:
    kind = getattr(bevia_fast, name)
    page = io.StringIO()
    pydoc.Helper(output=page).help(kind)
    shown = page.getvalue().replace(" |  ", "")
    for each in fields(kind):
        assert re.search(rf"^ +{each.name}\n +\S", shown, re.MULTILINE), each.name
    assert not re.search(r"--[a-z]", shown.replace("`bevia-fast plan`", ""))


def test_help_has_the_words_of_the_fields() -> None:
    words = bevia_fast.TrainConfig.__init__.__doc__ or ""
    assert "steps\n    Optimizer steps.\nminutes\n    Train for so many minutes" in words
    assert "model\n    ModelConfig: The shape of a decoder-only transformer.\n" in words
    assert "Only steps and the options that" in words


def test_the_help_of_the_commands_is_as_before() -> None:
    """It is made from the same classes."""
    code = (
        "import contextlib, io\n"
        "{}from bevia_fast.commands.main import main\n"
        "page = io.StringIO()\n"
        "with contextlib.redirect_stdout(page):\n"
        "    main(['train', '--help'])\n"
        "print(page.getvalue())\n"
    )
    names = "from bevia_fast import TrainConfig, ModelConfig\n"
    with_it, without = (
        subprocess.run([sys.executable, "-c", code.format(first)], check=True, capture_output=True, text=True).stdout
        for first in (names, "")
    )
    assert with_it == without
    assert "--save-seconds" in without


def test_a_class_without_source_keeps_its_help() -> None:
    made: dict[str, type] = {"dataclass": dataclass}  # type: ignore[dict-item]
    exec("@dataclass\nclass Made:\n    field: int = 0\n    'Words.'\n", made)
    before = made["Made"].__init__.__doc__  # type: ignore[misc]
    describe_fields(made["Made"])
    assert made["Made"].__init__.__doc__ == before  # type: ignore[misc]
    assert field_docstrings(made["Made"]) == {}
    assert made["Made"]().field == 0  # type: ignore[attr-defined]


def test_tables_escape_what_they_show() -> None:
    html = table("a & b", [("<b>", "<script>"), ("c", 5, "d")], ("<i>", "two"))
    assert html == (
        "<table><caption>a &amp; b</caption><tr><th>&lt;i&gt;</th><th>two</th></tr>"
        '<tr><th style="text-align: left">&lt;b&gt;</th><td style="text-align: left">&lt;script&gt;</td></tr>'
        '<tr><th style="text-align: left">c</th><td style="text-align: left">5</td>'
        '<td style="text-align: left">d</td></tr></table>'
    )
