"""Generation in the kernels: windows, a team of threads, and both backends."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, in_a_process

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, make_arguments
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.numba_jit import decode
from bevia_fast.kernels.numba_jit._runtime.scratch import scratch
from bevia_fast.kernels.numba_jit._runtime.team import DELAYED, MEMBERS, TEAM_SIZE
from bevia_fast.kernels.windows import places_of, stride, window_of

# So much work that a call is shared out among many threads.
CALL = Case(
    "decode_tokens", {"D": 50, "V": 65, "L": 3, "NH": 5, "HS": 24, "S": 20, "C": 120, "G": 5, "M": 96, "K": 2,
                      "H": 12},
    ("position_table", "ln_1_bias", "fc_bias"),
    {"token": 3, "index": 0, "norm": "pre", "activation": "gelu", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
     "key": 5, "draw": 0},
    spread=0.3,
)  # fmt: skip


# The same with rotary positions, so that the caches are rings.
RING = replace(CALL, dims={**CALL.dims, "K": 1}, given=("cosines", "sines", *CALL.given[1:]))


@pytest.mark.parametrize("case", cases("decode_tokens"), ids=str)
def test_numba_against_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@pytest.mark.parametrize("ctx", [1, 2, 3, 5, 8, 64, 65])
def test_windows_against_a_list_that_is_cut(ctx: int) -> None:
    window: list[int] = []
    for index in range(5 * ctx + 3):
        if len(window) == ctx:
            window = window[len(window) + 1 - max(1, ctx // 2) :]
        window.append(index)
        first = window_of(index, ctx) * stride(ctx)
        assert window == list(range(first, index + 1))
        places = places_of(index, ctx)
        assert places[0] == (window_of(index, ctx), len(window) - 1)
        everywhere = [k for k in range(index + 2) if 0 <= index - k * stride(ctx) < ctx]
        assert [k for k, _ in places] == everywhere  # two at most


@pytest.mark.parametrize("call", [CALL, RING], ids=["windows", "ring"])
def test_in_one_call_or_in_many(backend: Backend, dtype: str, call: Case) -> None:
    """The same bits, however many tokens a call draws: also where a window or the ring is full."""
    whole, parts = make_arguments(call, dtype), make_arguments(call, dtype)
    angles = {name: whole[name] for name in ("cosines", "sines") if whole.get(name) is not None}
    assert backend.decode_tokens(**whole) == 50
    drawn, done = parts["drawn"].copy(), 0
    for size in (1, 2, 13, 4, 29, 1):
        parts["drawn"] = np.zeros(size, np.int32)
        parts |= {name: array[done : done + size] for name, array in angles.items()}
        assert backend.decode_tokens(**parts) == size
        drawn[done : done + size] = parts["drawn"]
        done += size
        parts |= {"token": int(drawn[done - 1]), "index": done, "draw": done}
    assert drawn.tolist() == whole["drawn"].tolist()
    assert len(set(drawn.tolist())) > 5
    for name in ("logits", "keys", "values"):
        assert parts[name].tobytes() == whole[name].tobytes()


def test_a_ring_is_the_same_wherever_the_text_begins(backend: Backend, dtype: str) -> None:
    """A full ring whose places are turned, as are the numbers of its tokens, gives the same logits: attention does not
    ask for the order of its keys."""
    whole, turned = make_arguments(RING, dtype), make_arguments(RING, dtype)
    whole["index"], turned["index"] = 40, 47
    for name in ("keys", "values"):
        turned[name] = np.ascontiguousarray(np.roll(whole[name], 7, axis=3))
    for arguments in (whole, turned):
        assert backend.decode_tokens(**arguments) == 50
    assert turned["drawn"].tolist() == whole["drawn"].tolist()
    assert_close("logits", turned["logits"], whole["logits"], 1000 * EPS[dtype])


def test_a_ring_forgets_what_is_too_long_ago(backend: Backend, dtype: str) -> None:
    """NaN in the place of the oldest token is overwritten before it is read; that of the second oldest is read."""
    for place, count in ((0, 50), (1, 0)):
        arguments = make_arguments(RING, dtype) | {"index": 20}
        arguments["values"][:, :, :, place] = np.nan
        assert backend.decode_tokens(**arguments) == count
    arguments = make_arguments(RING, dtype)
    arguments["values"][...] = np.nan  # of a text of which nothing has been read
    assert backend.decode_tokens(**arguments) == 50


def test_a_nan_ends_it_where_it_shows(backend: Backend, dtype: str) -> None:
    for first_bad in (0, 7, 19):
        arguments = make_arguments(CALL, dtype)
        arguments["position_table"][first_bad:] = np.nan
        before = arguments["drawn"].copy()
        # from token 11 on, the next window is filled: its NaN does not count before its time
        assert backend.decode_tokens(**arguments) == first_bad
        assert arguments["drawn"][first_bad:].tolist() == before[first_bad:].tolist()


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="a team has at least two members")
@pytest.mark.parametrize("first_bad", [1, 7, 19])
def test_a_nan_after_a_team_was_dismissed(monkeypatch: pytest.MonkeyPatch, first_bad: int) -> None:
    """The first member goes on alone, and says rightly how far it came."""
    launch, teams = decode._launch, []

    def delayed(member: int, values: Any, threads: int) -> None:
        team = scratch("team", TEAM_SIZE, decode.INT64)
        team[DELAYED] = 1  # as if another program had taken a member's core
        launch(member, values, threads)
        teams.append(int(team[MEMBERS]))

    monkeypatch.setattr(decode, "_launch", delayed)
    monkeypatch.setattr(decode, "WORTH", 1)
    threads = numba.get_num_threads()
    numba.set_num_threads(2)
    try:
        while len(teams) < 20_000 and teams[-1:] != [2]:  # the second may come too late while others use its core
            time.sleep(0.001 * (len(teams) > 200))
            monkeypatch.setattr(decode, "_alone", 0)
            arguments = make_arguments(CALL, "float32")
            arguments["position_table"][first_bad:] = np.nan
            arguments["drawn"] = np.zeros(first_bad + 1, np.int32)
            assert get_backend("numba").decode_tokens(**arguments) == first_bad
    finally:
        numba.set_num_threads(threads)
    assert teams[-1] == 2


LAYERS = """
import hashlib, json, sys
import numba
from bevia_fast.agreement.comparison import make_arguments
from bevia_fast.kernels import get_backend
from test_decode import CALL

found = []
for threads in json.loads(sys.argv[1]):
    numba.set_num_threads(threads)
    for _ in range(20):
        arguments = make_arguments(CALL, "float32")
        get_backend("numba").decode_tokens(**arguments)
        found.append(hashlib.sha1(arguments["logits"].tobytes() + arguments["drawn"].tobytes()).hexdigest())
print(json.dumps([numba.threading_layer(), sorted(set(found))]))
"""


def test_the_team_on_other_threading_layers() -> None:
    """More threads than cores, and a layer that need not run them at the same time: no deadlock, the same bits."""
    expected: dict[str, Any] = {}
    for layer in ("workqueue", "default"):
        name, digests = in_a_process(LAYERS, [1, 2, 3, 8], NUMBA_NUM_THREADS="8", NUMBA_THREADING_LAYER=layer)
        expected[name] = digests
    assert "workqueue" in expected
    assert len({digest for digests in expected.values() for digest in digests}) == 1


ONE_AFTER_THE_OTHER = """
import json, sys
import numpy as np
from bevia_fast.agreement.comparison import make_arguments
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit import decode
from test_decode import CALL

found, launch = [], decode._launch

def in_turn(member, values, threads):
    for _ in range(4):  # as a layer would that has one thread for all items
        launch(member, values, 1)

for replacement in (launch, in_turn):
    decode._launch = replacement
    arguments = make_arguments(CALL, "float32")
    get_backend("numba").decode_tokens(**arguments)
    found.append(arguments["drawn"].tolist())
print(json.dumps(found))
"""


def test_items_of_the_loop_that_run_one_after_the_other() -> None:
    """The first finds itself alone, and does everything; for the others nothing is left."""
    found = in_a_process(ONE_AFTER_THE_OTHER, [], NUMBA_NUM_THREADS="4")
    assert found[0] == found[1]


def test_refusals_come_before_anything_is_written() -> None:
    for backend in map(get_backend, ("numpy", "numba")):
        arguments = make_arguments(CALL, "float32") | {"token": 65}
        keys = arguments["keys"].copy()
        with pytest.raises(ValueError, match="token is 65; wanted 0 <= token < 65"):
            backend.decode_tokens(**arguments)
        assert arguments["keys"].tobytes() == keys.tobytes()
