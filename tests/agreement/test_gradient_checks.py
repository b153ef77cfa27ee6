"""The check of backward passes: ours pass, wrong ones are found with array, place and values, and the rest is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bevia_fast.agreement.gradients import CONTRACT, TOLERANCE, check_gradients, found_pairs
from bevia_fast.commands.main import main
from bevia_fast.errors import UserError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend

NUMPY = get_backend("numpy")


def test_our_own_gradients_are_right(backend: Backend) -> None:
    found = check_gradients(backend)
    assert [str(one) for one in found if not one.ok] == []
    assert max(one.error for one in found) < TOLERANCE / 100
    with_gradient = {name.removesuffix("_backward") for name in OPERATIONS if name.endswith("_backward")}
    assert CONTRACT.keys() == with_gradient | {"cross_entropy"}
    assert found_pairs(backend) == list(CONTRACT)
    assert {one.case.split()[0].strip(",") for one in found} == CONTRACT.keys()


def scaled(operation: str, argument: int, factor: float) -> Any:
    """One function of NumPy's, but with one of its outputs multiplied by a factor, or what it adds to it."""

    def wrong(*arrays: Any, **options: Any) -> None:
        before = arrays[argument].copy()
        getattr(NUMPY, operation)(*arrays, **options)
        name = list(OPERATIONS[operation].signature.parameters)[argument]
        adds = name in OPERATIONS[operation].twice and not operation.startswith("rotary")  # which rotates in place
        added = before if adds else 0.0
        arrays[argument][...] = added + factor * (arrays[argument] - added)

    return SimpleNamespace(**{operation: wrong})


OUTPUTS = [
    (name, list(entry.signature.parameters).index(spec.name))
    for name, entry in OPERATIONS.items() if name.endswith("_backward") or name == "cross_entropy"
    for spec in entry.arrays if spec.output and spec.name.startswith("d")
]  # fmt: skip


@pytest.mark.parametrize(("operation", "place"), OUTPUTS)
def test_a_gradient_that_is_wrong_by_a_thousandth_is_found(operation: str, place: int) -> None:
    name = list(OPERATIONS[operation].signature.parameters)[place]
    if operation == "cross_entropy":
        def wrong(losses: Any, dlogits: Any, *rest: Any, **options: Any) -> None:
            NUMPY.cross_entropy(losses, dlogits, *rest, **options)
            if dlogits is not None:
                dlogits *= 1.001

        functions: Any = SimpleNamespace(cross_entropy=wrong)
    else:
        functions = scaled(operation, place, 1.001)
    found = check_gradients(functions)
    assert [one.tensor for one in found if not one.ok] == [name] * len([one for one in found if one.tensor == name])
    assert all(one.error == pytest.approx(1e-3, rel=0.3) for one in found if not one.ok)


def test_the_place_and_both_values_are_named() -> None:
    def backward(dinp: Any, dout: Any, inp: Any) -> None:
        dinp[...] = 3 * inp**2 * dout
        dinp[2, 4] += 0.5

    functions = SimpleNamespace(cube_forward=lambda out, inp: np.power(inp, 3, out=out), cube_backward=backward)
    [found] = check_gradients(functions)
    assert (found.case, found.tensor, found.index) == ("cube", "dinp", (2, 4))
    assert found.value_a - found.value_b == pytest.approx(0.5)


def test_an_output_that_is_not_written_and_a_gradient_that_is_not_added_are_found() -> None:
    [unwritten] = check_gradients(SimpleNamespace(gelu_backward=lambda dinp, dout, inp: None))
    assert not unwritten.ok

    def overwrites(dinp: Any, dweight: Any, dbias: Any, *rest: Any, **options: Any) -> None:
        dweight[...] = 0
        NUMPY.layernorm_backward(dinp, dweight, dbias, *rest, **options)

    found = check_gradients(SimpleNamespace(layernorm_backward=overwrites))
    assert {one.tensor for one in found if not one.ok} == {"dweight"}


def test_a_gradient_of_nan_is_wrong() -> None:
    [found] = check_gradients(SimpleNamespace(relu_backward=lambda dinp, dout, inp: dinp.fill(np.nan)))
    assert not found.ok


def test_a_wrong_forward_pass_is_compared_with_the_right_gradient() -> None:
    [found] = check_gradients(SimpleNamespace(relu_forward=lambda out, inp: np.multiply(inp, 0.5, out=out)))
    assert found.case == "relu"
    assert not found.ok


def test_inputs_stay_as_they_are() -> None:
    """A function that writes to what it shall read does not fool the comparison."""

    def backward(dinp: Any, dout: Any, inp: Any) -> None:
        dinp[...] = 3 * inp**2 * dout
        inp[...], dout[...] = 0, 0

    functions = SimpleNamespace(cube_forward=lambda out, inp: np.power(inp, 3, out=out), cube_backward=backward)
    [found] = check_gradients(functions)
    assert found.ok


@pytest.mark.parametrize(("functions", "message"), [
    (SimpleNamespace(), "nothing to check"),
    (SimpleNamespace(cube_forward=lambda out, inp: None), "nothing to check"),
    (SimpleNamespace(cube_backward=lambda dinp, dout, inp: None), "nothing to check"),
    (SimpleNamespace(relu_forward=3), "nothing to check"),
    (SimpleNamespace(a_forward=lambda out: None, a_backward=lambda dinp, dout, inp: None), "a cannot be checked: Type"),
    (SimpleNamespace(gelu_forward=lambda out, inp: 1 / 0), "gelu cannot be checked: ZeroDivisionError: division by"),
])  # fmt: skip
def test_what_cannot_be_checked_is_one_sentence(functions: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_gradients(functions)


def test_some_pairs_alone() -> None:
    assert {one.case for one in check_gradients(NUMPY, ["relu", "gelu"])} == {"relu", "gelu"}


MINE = """
import numpy as np

def silu_forward(out, inp):
    out[...] = inp / (1 + np.exp(-inp))

def silu_backward(dinp, dout, inp):
    s = 1 / (1 + np.exp(-inp))
    dinp[...] = dout * s * (1 + inp * (1 - s))
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    assert main(["check", "--gradients", "mine.py"]) == 0
    out = capsys.readouterr().out
    assert "silu" in out
    assert "1 gradient compared: none are wrong" in out
    (tmp_path / "mine.py").write_text(MINE.replace("(1 - s)", "(1 + s)"))
    assert main(["check", "--gradients", "mine.py"]) == 1
    assert "WRONG" in capsys.readouterr().out
    for name in ("numpy", "numba"):
        assert main(["check", "--gradients", name]) == 0
        assert "none are wrong" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["other.py"], "There is no file other.py."), (["empty.py"], "nothing to check"),
    (["broken.py"], "broken.py cannot be run: ZeroDivisionError"), (["text.txt"], "is not a Python file"),
    (["mine.py", "--quick"], "--quick cannot be combined with --gradients"),
])  # fmt: skip
def test_a_file_that_cannot_be_checked_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, content in (("mine.py", MINE), ("empty.py", ""), ("broken.py", "1 / 0"), ("text.txt", "x")):
        (tmp_path / name).write_text(content)
    assert main(["check", "--gradients", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
