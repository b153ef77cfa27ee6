"""What people type: words without options, numbers as they write them, and the names of other programs."""

from __future__ import annotations

from typing import Any

import pytest

from bevia_fast.commands.arguments import COMMANDS, options, parse
from bevia_fast.commands.fields import command_options
from bevia_fast.commands.hints import MEANING, OTHER_NAMES, REASONS
from bevia_fast.commands.main import main
from bevia_fast.config import GenerateConfig, TrainConfig, preset
from bevia_fast.errors import UserError
from bevia_fast.measuring.options import BENCHES, PROFILES


def refused(line: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        parse(line)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------- words without options


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("train a.txt", "train --data a.txt"),
        ("train a.txt b.txt --steps 5", "train --data a.txt b.txt --steps 5"),
        ("train --steps 5 a.txt", "train --data a.txt --steps 5"),
        ("train --no-tie a.txt --data b.txt", "train --no-tie --data a.txt b.txt"),
        ("train -", "train --data -"),
        ("plan a.txt --json p.json", "plan --data a.txt --json p.json"),
        ("generate runs/1 The", "generate runs/1 --prompt The"),
        ("generate --seed 2 runs/1 The", "generate runs/1 --prompt The --seed 2"),
        ("generate runs/1 -- --x", "generate runs/1 --prompt=--x"),
        ("generate runs/1 --prompt -x", "generate runs/1 --prompt=-x"),
        ("generate runs/1 -1", "generate runs/1 --prompt=-1"),
        ("generate -- -run", "generate ./-run"),
        ("train --out -run", "train --out=-run"),
        ("train --data=-x.txt", "train --data ./-x.txt"),
        ("train -- -x.txt -", "train --data ./-x.txt -"),
        ("train --glob=-* --glob=*.md", "train --glob [-]* *.md"),
        ("attention runs/1 The", "attention runs/1 --prompt The"),
        ("train --min_lr 1e-5", "train --min-lr 1e-5"),
        ("train --preset seed", "train --preset tiny"),
        ("train --preset=seed --heads 2", "train --heads 2 --preset tiny"),
        ("bench step --preset seed", "bench step --preset tiny"),
    ],
)
def test_lines_that_mean_the_same(line: str, same: str) -> None:
    assert parse(line.split()) == parse(same.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("generate runs/1 Once upon", "Unexpected argument 'upon'; quote a text of several words"),
        ("generate runs/1 Once --prompt upon", "Unexpected argument 'Once' beside --prompt"),
        ("check me", "Unexpected argument 'me'; see bevia-fast check --help."),
        ("train --tie false", "--tie takes no value; --no-tie switches it off."),
        ("train --recompute=false", "--recompute takes no value; --no-recompute switches it off."),
        ("train --steps", "--steps needs a value."),
        ("train --out --steps 5", "--out needs a value, such as --out=--x if the value begins with --."),
        ("train --preset", "--preset needs a value."),
        ("train --resume", "--resume needs a value"),
        ("train --resume=", "--resume needs a value"),
        ("-x train", "no option '-x' before the command; see bevia-fast --help."),
        ("help nothing", "There is no command 'nothing'"),
        ("completion ksh", "SHELL is 'ksh'; it must be one of bash, zsh, fish."),
        ("generate", "bevia-fast generate needs RUN: Run folder"),
        ("attention runs/1", "bevia-fast attention needs --prompt: Text to draw"),
    ],
)
def test_one_sentence_says_what_would_be_right(line: str, words: str) -> None:
    assert words in refused(line.split())


def test_a_text_may_begin_with_a_dash() -> None:
    for words in (["generate", "r", "- a"], ["generate", "r", "--prompt", "- a"], ["generate", "r", "--prompt=- a"]):
        assert parse(words).prompt == "- a"
    assert parse(["generate", "r", "--prompt", "-h"]).prompt == "-h"
    assert parse(["train", "--out", "-h", "--data", "x"]).out == "-h"


# -------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e3", 1000), ("1E3", 1000), ("2.5e3", 2500), ("1,000", 1000), ("1,234,567", 1234567), ("1_000", 1000),
     ("+5", 5), ("5.0", 5), ("007", 7)],
)  # fmt: skip
def test_integers_as_people_write_them(written: str, number: int) -> None:
    assert parse(["train", "--steps", written]).steps == number
    assert parse(["train", f"--steps={written}"]).steps == number
    assert parse(["bench", "step", "--threads", "1", written]).threads == (1, number) if number < 4096 else True


def test_each_kind_of_wrong_value_is_one_sentence_without_python() -> None:
    wrong = {int: ["many", "2.5", "", "1e-3", "nan", "inf", "0x10", "1,0", "1e999999999", "9" * 5000, "one two"],
             float: ["many", "", "1,5", "0x10"]}  # fmt: skip
    lines: list[tuple[list[str], type]] = [([name], kind) for name, kind in COMMANDS.items()]
    lines += [(["bench", name], kind) for name, kind in BENCHES.items()]
    lines += [(["profile", name], kind) for name, kind in PROFILES.items()]
    count = 0
    for words, kind in lines:
        for name, option in command_options(kind).items():
            values = ["nonsense"] if option.choices else wrong.get(option.kind, [])
            for value in () if option.positional else values:
                sentence = refused([*words, f"{name}={value}"])
                assert sentence.startswith((f"{name} is ", "There is no preset 'nonsense'")), sentence
                assert not any(word in sentence for word in ("literal", "could not convert", "Error", "Expected"))
                assert len(sentence) < 300
                count += 1
    assert count > 500


# ------------------------------------------------------------------------------------------------- options of elsewhere

NANOGPT = {
    "block_size": "--ctx", "n_embd": "--dim", "n_layer": "--layers", "n_head": "--heads", "batch_size": "--batch",
    "max_iters": "--steps", "learning_rate": "--lr", "eval_interval": "--eval-every", "init_from": "--resume",
    "out_dir": "--out", "warmup_iters": "--warmup", "eval_iters": "--eval-batches",
    "gradient_accumulation_steps": "--accumulate", "dataset": "--data",
}  # fmt: skip


@pytest.mark.parametrize(("name", "ours"), NANOGPT.items())
def test_the_names_of_nanogpt(name: str, ours: str) -> None:
    for word in (f"--{name}=5", f"--{name}", f"--{name.replace('_', '-')}"):
        assert refused(["train", word, "5"]) == f"There is no option {word!r}; that is {ours} here."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("generate r --max_new_tokens 5", "that is --length here."),
        ("generate r --start=The", "that is --prompt here."),
        ("generate r --num_samples 5", "'--num_samples': each call writes one text"),
        ("train --max_new_tokens 5", "--length is an option of bevia-fast generate."),
        ("generate r --max_iters 5", "--steps is an option of bevia-fast train."),
        ("generate r --steps 5", "--steps is an option of bevia-fast train."),
        ("train --prompt x", "--prompt is an option of bevia-fast generate."),
        ("train --device cpu", "'--device': every run computes on the CPU"),
        ("train --compile=False", "the numba backend always compiles"),
        ("train --epochs 3", "--steps says how long to train"),
        ("train -steps 5", "that is --steps here."),
        ("train --STEPS 5", "that is --steps here."),
        ("bench step --block_size 5", "that is --ctx here."),
    ],
)
def test_other_names_are_answered(line: str, words: str) -> None:
    assert words in refused(line.split())


def test_nanogpts_own_name_is_accepted_where_it_is_the_same() -> None:
    assert parse(["train", "--weight_decay", "0.2"]) == TrainConfig(weight_decay=0.2)


def test_every_other_name_leads_to_an_option_that_exists() -> None:
    everything = set().union(*(options(kind) for kind in COMMANDS.values())) | {"--version"}
    assert {f"--{name}" for name in OTHER_NAMES} <= everything
    assert len(MEANING) == sum(map(len, OTHER_NAMES.values()))  # no name has two meanings
    assert not MEANING.keys() & REASONS.keys()
    for name in [*MEANING, *REASONS]:
        assert f"--{name}" not in options(TrainConfig) | options(GenerateConfig)
        sentence = refused(["train", f"--{name}"])
        assert "did you mean" not in sentence
        assert "--help" not in sentence  # it says more than that


def typos(name: str) -> set[str]:
    """Each slip of the fingers in a name of an option: a letter left out, doubled, swapped, or another one."""
    places = range(2, len(name))
    return {
        *(name[:i] + name[i + 1 :] for i in places), *(name[:i] + name[i] + name[i:] for i in places),
        *(name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in places[:-1]),
        *(name[:i] + "x" + name[i + 1 :] for i in places),
    }  # fmt: skip


@pytest.mark.parametrize("command", ["train", "generate"])
def test_did_you_mean_finds_each_slip_and_nothing_else(command: str) -> None:
    known = command_options(COMMANDS[command])
    names = [name for name, option in known.items() if not option.positional and len(name) > 6]
    for name in names:
        for typo in typos(name) - set(known) - {f"--{other}" for other in [*MEANING, *REASONS]}:
            sentence = refused([command, typo])
            if "did you mean" not in sentence:  # a name of four or five letters, changed in the middle
                assert len(name) <= 8
                continue
            guess = sentence.partition("did you mean ")[2].partition("?")[0]
            # Two options that differ in one letter, such as beta1 and beta2, are both right.
            assert guess == name or sum(a != b for a, b in zip(guess, name, strict=False)) <= 2, (typo, sentence)
    for foreign in ("--zebra", "--node-rank", "--master-port", "--logit-bias", "--verbose-level", "--fsdp", "--loss"):
        assert "did you mean" not in refused([command, foreign])


# -------------------------------------------------------------------------------------------------------------- presets


def test_preset_names_come_with_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "tiny (ctx 64, dim 64, layers 1, heads 1, batch 8)"
    assert sizes in refused(["train", "--preset", "huge"])
    for line in (["train"], ["plan"], ["bench", "step"], ["profile", "step"]):
        assert main([*line, "--help"]) == 0
        page = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert sizes in page
        assert "seed (" not in page
    assert parse(["train", "--preset", "seed"]) == preset("tiny")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    pages: dict[str, Any] = {}
    for line in ("--help", "help", "", "train --help", "help train", "train --stepz -h", "bench step --help",
                 "help bench step", "-V", "--version"):  # fmt: skip
        assert main(line.split()) == 0, line
        pages[line] = capsys.readouterr().out
    assert pages["--help"] == pages["help"] == pages[""]
    assert pages["train --help"] == pages["help train"] == pages["train --stepz -h"]
    assert pages["bench step --help"] == pages["help bench step"]
    assert pages["-V"] == pages["--version"]
    assert pages["-V"].startswith("bevia-fast ")
