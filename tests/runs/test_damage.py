"""Damaged checkpoints are refused, and the newest intact one is used."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import Acting, digest, metadata, result, signed, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.errors import CheckpointError
from bevia_fast.plots import draw_losses, png
from bevia_fast.runs import modelfile
from bevia_fast.runs.checkpoint import ADDED, checkpoints, load_checkpoint, newest_good, save_checkpoint, stored_config
from bevia_fast.runs.folder import read_metrics
from bevia_fast.runs.metrics import VALUES
from bevia_fast.runs.modelfile import load_model
from bevia_fast.runs.progress import Best
from bevia_fast.runs.tensorfile import MOST_VALUES

pytestmark = pytest.mark.usefixtures("quick_runs")

BLOCK = 512  # bytes: the smallest unit that a disk writes
FLIPS = 2000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config(tmp_path_factory.mktemp("finished"))).folder


def refused(path: Path, load: Any = load_checkpoint) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


def spoiled(whole: bytes) -> list[bytes]:
    """Return damaged copies: truncated at every block, with one bit flipped, with blocks zeroed, missing or doubled."""
    random_numbers = random.Random(3)
    cuts = {*range(0, len(whole), BLOCK), 1, 7, 8, 9, len(whole) - 1}
    found = [whole[:length] for length in cuts]
    for _ in range(FLIPS):
        data = bytearray(whole)
        data[random_numbers.randrange(len(data))] ^= 1 << random_numbers.randrange(8)
        found.append(bytes(data))
    for start in range(0, len(whole), BLOCK):
        block = whole[start : start + BLOCK]
        found.append(whole[:start] + bytes(len(block)) + whole[start + BLOCK :])
        found.append(whole[:start] + whole[start + BLOCK :])
        found.append(whole[:start] + block + block + whole[start + BLOCK :])
    return [data for data in found if data != whole]


def test_any_damage_to_a_checkpoint_is_found(finished: Path, tmp_path: Path) -> None:
    newest = checkpoints(finished)[0][1]
    path, tried = tmp_path / newest.name, 0
    for data in spoiled(newest.read_bytes()):
        path.write_bytes(data)
        refused(path)
        tried += 1
    assert tried > FLIPS
    print(f"{tried} damaged checkpoints")


def test_any_damage_to_a_model_is_found(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for data in spoiled((finished / path.name).read_bytes()):
        path.write_bytes(data)
        refused(path, load_model)


def test_the_newest_intact_checkpoint_is_used_and_damaged_ones_are_named(tmp_path: Path) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    run = train(tiny_config(tmp_path, keep=3))
    (_, newest), (_, second), (third_step, _) = checkpoints(run.folder)
    newest.write_bytes(newest.read_bytes()[:-1])
    second.write_bytes(b"")
    found, damaged = newest_good(run.folder)
    assert found.progress.step == third_step
    assert [str(path) in text for path, text in zip((newest, second), damaged, strict=True)] == [True, True]
    reporter = Acting()
    train(stored_config(run.folder), reporter)
    assert newest.name in reporter.notes[0]
    assert "its checksum does not match its contents" in reporter.notes[0]
    assert "Resuming from the checkpoint before it" in reporter.notes[1]
    assert result(run.folder) == result(whole.folder)


def test_only_damaged_checkpoints_of_later_steps_are_removed(tmp_path: Path) -> None:
    """A checkpoint of another version stays, because that version can read it."""
    run = train(tiny_config(tmp_path, keep=3)).folder
    newer, cut, turned = (run / "checkpoints" / f"step-000000{step}.safetensors" for step in (20, 19, 18))
    whole = checkpoints(run)[0][1].read_bytes()
    about = metadata(whole)
    newer.write_bytes(signed(about | {"format_version": 99}, whole))
    cut.write_bytes(whole[:-1])
    turned.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    train(replace(stored_config(run), steps=12), Acting())
    assert [step for step, _ in checkpoints(run)] == [20, 12, 10, 9]
    assert problem(newer).endswith("has format version 99; this program reads version 1.")
    train(replace(stored_config(run), steps=27))
    assert [step for step, _ in checkpoints(run)] == [27, 24, 21]  # past step 20, it is an old checkpoint


def test_a_run_without_an_intact_checkpoint_is_refused(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path)).folder
    for _, path in checkpoints(run):
        path.write_bytes(path.read_bytes()[100:])
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    message = r"has no intact checkpoint to resume from: .* Older checkpoints that cannot be used either: 1\.$"
    with pytest.raises(CheckpointError, match=message):
        stored_config(run)
    with pytest.raises(CheckpointError, match="has no intact checkpoint to resume from: "):
        train(tiny_config(tmp_path, resume=str(run), out=""))
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before


def test_the_name_of_a_checkpoint_must_match_its_contents(finished: Path, tmp_path: Path) -> None:
    """The step is the one in the file; other files in the folder are ignored."""
    _, newest = checkpoints(finished)[0]
    other = tmp_path / "checkpoints" / "step-00000099.safetensors"
    other.parent.mkdir()
    other.write_bytes(newest.read_bytes())
    assert "its step is 10" in refused(other)
    for name in ("step-1.part", "step--1.safetensors", "..safetensors", "step-9999999999999999.safetensors", "x"):
        (other.parent / name).write_bytes(b"")
    (other.parent / newest.name).write_bytes(newest.read_bytes())
    (other.parent / "step-00000011.safetensors").mkdir()
    found, damaged = newest_good(tmp_path)
    assert found.progress.step == 10
    assert len(damaged) == 2
    assert digest(found) == digest(newest_good(finished)[0])


def problem(path: Path) -> str:
    """Return what is wrong with a checkpoint; empty if it is valid."""
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return ""


def test_invalid_metadata_is_refused(finished: Path, tmp_path: Path) -> None:
    """The checksum is right, so only the validation of each value can find it."""
    newest = checkpoints(finished)[0][1]
    whole, path = newest.read_bytes(), tmp_path / newest.name
    about = metadata(whole)
    path.write_bytes(signed(about, whole))
    load_checkpoint(path)  # `signed` itself is right
    bad: list[Any] = [None, 0, -1, 1.5, "x" * 10_000, [], [[]], {}, {"a": 1}, True, 1 << 70, float("nan"), "\n\x1b[2J",
                      10**400, -(10**400), [float("nan")], {"a": [float("inf")]}, {"step": 6}, [10**400]]
    places: list[list[str]] = [[name] for name in about] + [["progress", name] for name in about["progress"]]
    places += [["progress", "spikes", name] for name in about["progress"]["spikes"]]
    places += [["config", name] for name in about["config"]]
    places += [["config", "model", name] for name in about["config"]["model"]]
    record = {"step": about["progress"]["step"], **dict.fromkeys(VALUES)}
    about["progress"]["unfinished"] = {**record, "lr": 0.1, "crosscheck_tensor": "wte.weight"}
    places += [["progress", "unfinished", name] for name in record]
    places += [["versions", "numpy"]]
    path.write_bytes(signed(about, whole))
    load_checkpoint(path)
    accepted = tried = 0
    for place in places:
        for value in bad:
            changed = json.loads(json.dumps(about))
            inner = changed
            for name in place[:-1]:
                inner = inner[name]
            inner[place[-1]] = value
            path.write_bytes(signed(changed, whole))
            tracemalloc.start()
            tried += 1
            error = problem(path)
            accepted += not error  # such as 1.5 for a learning rate, which is valid
            assert "\n" not in error
            assert "\x1b" not in error
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
            tracemalloc.stop()
        if place[0] == "versions" and len(place) > 1:  # any names are valid
            continue
        changed = json.loads(json.dumps(about))
        inner = changed
        for name in place[:-1]:
            inner = inner[name]
        del inner[place[-1]]
        path.write_bytes(signed(changed, whole))
        if place[0] == "config" and place[-1] in {*ADDED, *modelfile.ADDED}:  # as in files of earlier versions
            load_checkpoint(path)
        elif place == ["progress", "order"]:  # the first order has no name
            assert load_checkpoint(path).progress.order == 1
        elif place == ["progress", "best"]:  # earlier versions kept none
            assert load_checkpoint(path).progress.best == Best()
        else:
            refused(path)
    assert accepted < tried / 5
    for text in (None, [], "x", 3):
        path.write_bytes(signed(text, whole))
        refused(path)


@pytest.mark.parametrize(("place", "value"), [
    ("versions.numpy", 3), ("versions.numpy", "x" * 201), ("versions", dict.fromkeys(map(str, range(101)), "1")),
    ("fingerprint", "x"), ("fingerprint", "Z" * 64), ("config.lr", 10**400), ("config.weight_decay", 10**400),
    ("config.steps", 10**400), ("progress.skipped", 10**400), ("progress.spikes.mean", 10**400),
    ("progress.spikes.variance", -1), ("progress.best.step", 11), ("progress.best.step", 0),
    ("progress.best.since", -1), ("progress.best.loss", None), ("progress.best.loss", float("nan")),
    ("progress.best", {"step": 1}), ("progress.unfinished", {"step": 10}),
    ("progress.unfinished", {"step": 10, **dict.fromkeys(VALUES), "loss": [float("nan")]}),
])  # fmt: skip
def test_values_of_the_right_type_that_make_no_sense_are_refused(
    finished: Path, tmp_path: Path, place: str, value: Any
) -> None:
    newest = checkpoints(finished)[0][1]
    whole, path = newest.read_bytes(), tmp_path / newest.name
    inner = about = metadata(whole)
    *outer, last = place.split(".")
    for name in outer:
        inner = inner[name]
    inner[last] = value
    path.write_bytes(signed(about, whole))
    assert "has a damaged header" in refused(path)


@pytest.mark.parametrize("filling", ["[],", "{},", "0,", "[" * 3, '"x":{},', "1e5,", '"",'])
@pytest.mark.parametrize("where", ["metadata", "tensors", "both"])
def test_a_hostile_header_takes_little_memory(tmp_path: Path, filling: str, where: str) -> None:
    """16 MiB of small values would take 1.1 GB if they were parsed. The checksum is right."""
    size = (16 << 20) - 200
    if where == "metadata":
        text = json.dumps("[" + filling * ((size - size // 4) // len(filling) // 2) + "0]")
        rest = f'","bevia-fast":{text}}}}}'
    elif where == "tensors":
        rest = '","bevia-fast":"{}"},"a":[' + filling * (size // len(filling)) + "0]}"
    else:
        rest = '","bevia-fast":[' + filling * (size // len(filling)) + "0]}}"
    start = (29 + 64 + len(rest)).to_bytes(8, "little") + b'{"__metadata__":{"checksum":"'
    data = rest.encode()
    path = tmp_path / "step-00000010.safetensors"
    path.write_bytes(start + hashlib.sha256(start + data).hexdigest().encode() + data)
    tracemalloc.start()
    for load in (load_checkpoint, load_model):
        assert "has a damaged header" in refused(path, load)
    assert tracemalloc.get_traced_memory()[1] < 96 << 20
    tracemalloc.stop()


def test_a_file_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run = train(replace(config, data=[*config.data, *(str(tmp_path / "text.txt") for _ in range(9))]))
    checkpoint, _ = newest_good(run.folder)
    long = replace(checkpoint.config, data=["x"] * (MOST_VALUES + 1))
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="names and options take more than a file can hold"):
        save_checkpoint(run.folder, long, checkpoint.tokenizer, checkpoint.progress, "0" * 64, checkpoint.tensors)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["version", "data", "option"])
def test_nothing_from_a_file_controls_the_terminal(tmp_path: Path, place: str, capfd: Any) -> None:
    """A run of a stranger, with right checksums."""
    run = train(tiny_config(tmp_path)).folder
    newest = checkpoints(run)[0][1]
    whole = newest.read_bytes()
    about = metadata(whole)
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m"
    if place == "version":
        about["versions"] = {"numpy": evil, evil: "1"}
    elif place == "data":
        about["config"]["data"] = [str(tmp_path / evil)]
    else:
        about["config"][evil] = 1
    newest.write_bytes(signed(about, whole))
    capfd.readouterr()
    code = main(["train", "--resume", str(run), "--steps", "12"])
    out, err = capfd.readouterr()
    assert code == (2 if place == "data" else 0), err
    assert "x1b[2J" in out + err  # it is shown, escaped
    assert not {"\x1b", "\x07", "\x9b"} & set(out + err)


@pytest.mark.parametrize("line", [3, 7, 10])
def test_a_damaged_line_of_metrics_costs_one_line_and_is_said(tmp_path: Path, line: int) -> None:
    """One quote is missing; the lines behind it stay, and so does everything else of the run."""
    whole, run = train(tiny_config(tmp_path, "whole")).folder, train(tiny_config(tmp_path)).folder
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"', b"", 1)
    metrics.write_bytes(b"".join(lines))
    for steps in (12, 14):
        reporter = Acting()
        train(replace(stored_config(run), steps=steps), reporter)
        told = [note for note in reporter.notes if "metrics.jsonl was damaged" in note]
        aside = run / "metrics.damaged-1.jsonl"
        assert told == ([f"metrics.jsonl was damaged; its intact lines stay, and the whole file is kept as {aside}."]
                        if steps == 12 else [])  # fmt: skip
        assert aside.read_bytes() == b"".join(lines)
    assert [record["step"] for record in read_metrics(run)] == [step for step in range(15) if step != line]
    assert metrics.read_bytes().splitlines(keepends=True)[:line] == lines[:line]
    assert [path.name for path in run.glob("metrics*")].count("metrics.damaged-1.jsonl") == 1
    train(replace(stored_config(whole), steps=12))
    train(replace(stored_config(whole), steps=14))
    assert digest(newest_good(run)[0]) == digest(newest_good(whole)[0])


def test_metrics_without_losses_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another program may have written them; what is missing is null."""
    run = train(tiny_config(tmp_path))
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "x": 1}) + "\n" for step in range(11)))
    assert run.history[3] == {"step": 3, "x": 1, **dict.fromkeys(VALUES)}
    assert png(draw_losses(run.history)).startswith(b"\x89PNG")
    reporter = Acting()
    train(replace(stored_config(run.folder), steps=11), reporter)
    assert reporter.notes == []
