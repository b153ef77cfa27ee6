"""The options of `bench` and `profile`: their help, and what they refuse."""

from __future__ import annotations

import pytest

from bevia_fast.commands.arguments import options
from bevia_fast.commands.main import main
from bevia_fast.measuring.options import BENCHES, PROFILES, BenchScalingConfig, BenchStepConfig, ProfileKernelConfig


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bench stop", "no command bevia-fast bench stop (did you mean step?)"),
        ("bench step --ctxx 5", "no option '--ctxx' (did you mean --ctx?)"),
        ("bench step --dim 10 --heads 3", "not divisible"),
        ("bench step --backend jax", "jax"),
        ("bench step --threads 4000", "--threads 4000"),
        ("bench step --threads 0", "--threads is 0"),
        ("bench step --seconds 0", "--seconds is 0.0"),
        ("bench step --peer jax", "jax"),
        ("bench step --peer torch --torch-python /nowhere", "Cannot start /nowhere"),
        ("bench step --json /nowhere/x.json", "there is no folder"),
        ("bench step --ctx 16000000 --batch 1000", "16,000,000,000 tokens is too large; the limit is 1,073,741,824."),
        ("bench kernels --only atention", "no kernel 'atention' (did you mean attention?)"),
        ("bench scaling --over vocab", "vocab"),
        ("bench scaling --over dim --values 30 --heads 4", "not divisible"),
        ("bench scaling --threads 1 2", "--over ctx takes one number of --threads, not 2."),
        ("bench scaling --over threads --threads 2", "--values, not from --threads"),
        ("bench contexts --preset tiny", "no option '--preset'"),
        ("bench contexts --ctx 64", "no option '--ctx'"),
        ("bench contexts --turns 2", "no option '--turns'"),
        ("bench contexts --batch 0", "--batch is 0"),
        ("bench compare a.json", "Name two results files"),
        ("bench kernels --only", "--only needs at least one value."),
        ("bench step --peer --threads 1", "--peer needs at least one value."),
        ("bench compare /nowhere/a.json b.json", "Cannot read /nowhere/a.json"),
        ("profile", "KERNEL"),
        ("profile atention", "no kernel 'atention' (did you mean attention?)"),
        ("profile attention --heads 3 --dim 64", "--dim 64 is not divisible by --heads 3"),
        ("profile attention --heads 4 --head-size 16 --dim 60", "--dim 60 is not --heads 4 times --head-size 16"),
        ("profile attention --ctx 0", "--ctx is 0"),
        ("profile attention --ctx 1000000", "needs about"),
        ("profile attention --threads 4000", "--threads 4000"),
        ("profile step --trace /nowhere/t.json", "there is no folder"),
        ("profile step --backend jax", "jax"),
        ("profile attention --asm --backend numpy", "--asm shows the machine code of numba; add numba to --backend."),
        ("profile attention step", "step is not a kernel; run bevia-fast profile step by itself."),
        ("profile list --all", "no option '--all'"),
    ],
)
def test_bad_requests_are_one_sentence(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if line == "profile":
        assert main(["profile"]) == 0  # the help
        assert words in capsys.readouterr().out
        return
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bevia-fast: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_every_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    for command, kinds in (("bench", BENCHES), ("profile", PROFILES)):
        for name, config in kinds.items():
            assert main([command, name, "--help"]) == 0
            page = capsys.readouterr().out
            for option in options(config) - {"--a", "--b", "--run"}:
                assert option in page
    assert main(["profile", "--help"]) == 0
    page = capsys.readouterr().out
    for option in options(ProfileKernelConfig) - {"--kernels"}:
        assert option in page


def test_a_point_of_a_curve_has_all_options() -> None:
    config = BenchScalingConfig(over="threads", ctx=8, turns=3, dtype="float64", peer=("torch-eager",))
    assert config.at(3) == BenchStepConfig(ctx=8, turns=3, dtype="float64", peer=("torch-eager",), threads=(3,))
    assert BenchScalingConfig(over="dim", threads=(2,)).at(64) == BenchStepConfig(dim=64, threads=(2,))
