"""The profile of a step: its parts add up to the whole, and its trace follows the Trace Event format."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import pytest

from bevia_fast.commands.main import main
from bevia_fast.kernels import get_backend, instruments
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.instruments import instruments_ns
from bevia_fast.measuring import step_profile
from bevia_fast.measuring.options import ProfileStepConfig
from bevia_fast.measuring.step_profile import RecordedStep, StepProfile, profile_step
from bevia_fast.measuring.step_summary import as_object, by_kernel, by_place
from bevia_fast.measuring.stopwatch import Ratio
from bevia_fast.measuring.trace import trace_events
from bevia_fast.measuring.training_step import StepSize, TrainingStep


@pytest.fixture(scope="module", params=["numpy", "numba"])
def profile(request: pytest.FixtureRequest) -> StepProfile:
    backend: Any = request.param
    return profile_step(ProfileStepConfig(ctx=32, dim=48, layers=3, heads=2, batch=6, backend=backend, seconds=1.0))


class Ticks:
    """A clock that advances by one whenever it is read."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def one_clock(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    """Let the step and its parts read the same fake clock."""
    ticks = Ticks()
    for module in (step_profile, instruments):
        monkeypatch.setattr(module, "clock", ticks)
    return ticks


def test_recording_reads_the_clock_twice_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """And twice per step, at its begin and end. `profile step` reports what that costs."""
    config = ProfileStepConfig(preset="tiny")
    recorded = RecordedStep(TrainingStep(StepSize.of(config.model(), config.sequences()), get_backend("numpy")))
    print(f"{instruments_ns():.0f} ns per call")
    ticks = one_clock(monkeypatch)
    for _ in range(4):  # run, taped, played
        before = ticks.now
        recorded.run()
        assert ticks.now - before == 2 * 26 + 2
        assert recorded.recorded[-1] == tuple(range(before + 1, ticks.now + 1))


def test_the_parts_are_a_whole_step_except_for_reading_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    one_clock(monkeypatch)
    config = ProfileStepConfig(ctx=8, dim=16, layers=1, heads=2, batch=2, backend="numpy", seconds=0.05)
    found = profile_step(config)
    reads = 2 * len(found.calls) + 2  # one less between the first and the last, one more from outside
    assert found.covered == Ratio(*3 * [(reads - 1) / (reads + 1)])
    assert found.slowdown.median == reads + 1


def test_calls_are_labeled_with_the_weights_that_they_use() -> None:
    step = TrainingStep(StepSize(ctx=8, dim=16, layers=2, heads=2, batch=2, vocab=5), get_backend("numpy"))
    found: dict[str, set[str]] = {}
    for call in RecordedStep(step).calls:
        found.setdefault(call.operation, set()).add(call.weight)
    layers = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert found["linear_forward"] == found["linear_backward"] == {*layers, "wte"}
    assert found["layernorm_forward"] == found["layernorm_backward"] == {"ln_1", "ln_2", "ln_f"}
    assert found["attention_forward"] == found["embedding_backward"] == found["adamw"] == {""}


def test_each_batch_of_a_step_has_its_phases() -> None:
    """With --accumulate, forward and backward alternate."""
    size = StepSize(ctx=8, dim=16, layers=1, heads=2, batch=2, vocab=5)
    one = RecordedStep(TrainingStep(size, get_backend("numpy"))).calls
    three = RecordedStep(TrainingStep(replace(size, accumulate=3, dropout=0.1), get_backend("numpy"))).calls
    phases = [phase for phase, _ in groupby(call.phase for call in three)]
    assert phases == ["forward", "head", "backward"] * 3 + ["update"]
    undropped = [(call.operation, call.place) for call in three if not call.operation.startswith("dropout")]
    batch = [(call.operation, call.place) for call in one if call.phase != "update"]
    assert undropped[: 3 * len(batch)] == batch * 3
    assert "dropout_forward" in {call.operation for call in three}


def test_a_call_made_in_parts_is_counted_in_its_place() -> None:
    """A model may make a call for some rows at a time, or with arguments that do not show its layer."""
    step = TrainingStep(StepSize(ctx=8, dim=16, layers=2, heads=2, batch=2, vocab=5), get_backend("numpy"))
    whole = RecordedStep(step).calls

    def in_halves(out: Any, inp: Any, *others: Any, **options: Any) -> None:
        for rows in (slice(0, len(inp) // 2), slice(len(inp) // 2, None)):
            some = {name: x[rows] if hasattr(x, "shape") else x for name, x in options.items()}
            step.backend.linear_forward(out[rows], inp[rows], *others, **some)
            step.backend.relu_forward(out[rows], out[rows])  # has no parameters

    class Halving:
        """A backend that makes two calls of `linear_forward` out of one, each followed by another call."""

        def __getattr__(self, name: str) -> Any:
            return in_halves if name == "linear_forward" else getattr(step.backend, name)

    learn = step.model.loss_and_gradients

    def halved(*args: Any, **kwargs: Any) -> float:
        before, step.model.backend = step.model.backend, cast(Backend, Halving())
        try:
            return learn(*args, **kwargs)
        finally:
            step.model.backend = before

    step.model.loss_and_gradients = halved  # type: ignore[method-assign]
    recorded = RecordedStep(step)
    recorded.run()
    halves = recorded.calls

    def products(calls: Any) -> dict[Any, float]:
        sums: dict[Any, float] = {}
        for call in calls:
            if call.operation.startswith(("linear", "attention")):
                key = (call.operation, call.phase, call.place)
                sums[key] = sums.get(key, 0.0) + call.cost.flops
        return sums

    assert products(halves) == products(whole)
    places = [call.place for call in halves if call.operation == "relu_forward"]
    assert places == ["layer 0"] * 8 + ["layer 1"] * 8 + ["head"] * 2
    assert {call.phase for call in halves[-2:]} == {"update"}
    assert len(recorded.recorded[-1]) == 2 * len(halves) + 2


def assert_valid_trace(data: Any) -> dict[tuple[int, int], list[Any]]:
    """Check that the trace is in JSON object form, has only complete and metadata events, and that the spans of each
    thread are strictly nested or disjoint. Return the spans of each thread with their depth, in order of time."""
    assert isinstance(data, dict)
    assert data.get("displayTimeUnit", "ms") in ("ms", "ns")
    threads: dict[tuple[int, int], list[Any]] = {}
    for event in data["traceEvents"]:
        assert event["ph"] in ("X", "M")
        assert isinstance(event["name"], str)
        assert event["name"]
        assert type(event["pid"]) is int
        assert type(event["tid"]) is int
        assert isinstance(event.get("args", {}), dict)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        for name in ("ts", "dur"):
            assert type(event[name]) in (int, float)
            assert event[name] >= 0
        threads.setdefault((event["pid"], event["tid"]), []).append(event)
    found = {}
    for thread, events in threads.items():
        in_ns = sorted(
            (round(e["ts"] * 1000), -round((e["ts"] + e["dur"]) * 1000), e["name"], e["cat"]) for e in events
        )
        stack: list[int] = []
        found[thread] = []
        for begin, minus_end, name, category in in_ns:
            end = -minus_end
            while stack and stack[-1] <= begin:
                stack.pop()
            assert not stack or end < stack[-1], f"{name} ends after the span that contains it"
            found[thread].append((len(stack), begin, end, name, category))
            stack.append(end)
        begins = [begin for _, begin, _, _, _ in found[thread]]
        assert len(begins) == len(set(begins)), "two spans begin together"
    return found


def test_the_trace_is_valid_and_strictly_nested(profile: StepProfile) -> None:
    data = json.loads(json.dumps(trace_events(profile)))
    (spans,) = assert_valid_trace(data).values()
    depths = {"step": 0, "phase": 1, "layer": 2, "kernel": 3}
    assert all(depth == depths[category] for depth, _, _, _, category in spans)
    steps = len(profile.recorded)
    kernels = [name for _, _, _, name, category in spans if category == "kernel"]
    assert kernels == [call.operation for call in profile.calls] * steps
    phases = [name for _, _, _, name, category in spans if category == "phase"]
    assert phases == ["forward", "head", "backward", "update"] * steps
    layers = [name for _, _, _, name, category in spans if category == "layer"]
    forward = ["embeddings", "layer 0", "layer 1", "layer 2", "final norm"]
    assert layers == [*forward, "head", *reversed(forward), "optimizer"] * steps


def test_a_trace_with_overlapping_spans_is_rejected() -> None:
    def event(name: str, ts: float, dur: float) -> dict[str, Any]:
        return {"ph": "X", "name": name, "cat": "x", "pid": 1, "tid": 1, "ts": ts, "dur": dur}

    assert_valid_trace({"traceEvents": [event("a", 0, 10), event("b", 1, 8), event("c", 10, 1)]})
    for wrong in ([event("a", 0, 10), event("b", 5, 10)], [event("a", 0, 10), event("b", 1, 9)],
                  [event("a", 0, 10), event("b", 0, 9)], [event("a", 0, -1)]):  # fmt: skip
        with pytest.raises(AssertionError):
            assert_valid_trace({"traceEvents": wrong})


def test_the_parts_are_the_whole(profile: StepProfile) -> None:
    assert len(profile.gaps) == len(profile.calls) + 1
    assert sum(profile.durations) + sum(profile.gaps) == pytest.approx(profile.whole, rel=1e-9)
    assert sum(row["share"] for row in by_kernel(profile)) == pytest.approx(1.0)
    assert sum(row["share"] for row in by_place(profile)) == pytest.approx(1.0)
    assert sum(row["launches"] for row in by_kernel(profile)) == len(profile.calls)
    assert sum(row["bound_ms"] for row in by_kernel(profile)) == pytest.approx(as_object(profile)["bound_ms"])
    # `profile step` reports how this compares with a step without instruments
    print(f"{profile.covered.low:.4f} to {profile.covered.high:.4f} of the same steps timed from outside")
    assert profile.covered.high <= 1.0
    assert profile.coverage.low <= profile.coverage.median <= profile.coverage.high
    assert profile.steps >= 8
    json.dumps(as_object(profile))


def test_step_with_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, figures = tmp_path / "trace.json", tmp_path / "step.json"
    line = ["profile", "step", "--preset", "tiny", "--backend", "numpy", "--seconds", "0.3"]
    assert main([*line, "--trace", str(trace), "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    for words in ("attention_backward", "layer 0", "Python between kernels", "total", "without instruments"):
        assert words in out
    assert json.loads(trace.read_text())["traceEvents"]
    found = json.loads(figures.read_text())
    assert sum(row["ms"] for row in found["by_kernel"]) == pytest.approx(found["whole_ms"])
