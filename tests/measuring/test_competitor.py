"""The process of a competitor, from the side of its parent."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from bevia_fast.measuring.competitor import Competitor, CompetitorError


def test_a_killed_process_is_reported() -> None:
    with Competitor("numpy", 1) as one:
        one.ask("load")
        one.process.kill()
        words = r"^numpy was ended by signal 9 \(Killed\), perhaps because memory ran out\.$"
        with pytest.raises(CompetitorError, match=words):
            one.ask("facts")


def test_a_competitor_can_run_in_an_interpreter_without_this_package() -> None:
    """As for a peer: the package is loaded by its path, and imports nothing heavy."""
    with Competitor("torch-eager", 1, sys.executable) as peer:
        assert set(peer.ask("facts")["versions"]) == {"python"}
        if importlib.util.find_spec("torch") is None:
            with pytest.raises(CompetitorError, match="PyTorch is not installed"):
                peer.ask("load")
