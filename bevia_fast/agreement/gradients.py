"""Check backward passes against finite differences of their forward passes: the kernels' own, or a reader's.

    for found in check_gradients(get_backend("numpy")):
        assert found.ok, found

A pair of functions `NAME_forward` and `NAME_backward` is called in float64 on arrays of a few random numbers, in the
order of the contract: outputs first, then inputs. The loss is the sum of dout * out, and each gradient is compared with
how much the loss changes when an input moves up and down by STEP. Outputs are filled with noise beforehand, so that a
function that does not write is noticed; gradients of parameters must be added to what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, reason
from ..kernels import get_backend
from .comparison import Comparison, difference

Array = NDArray[Any]

STEP = 1e-5  # truncation costs about STEP^2 and rounding eps/STEP: both near 1e-10
TOLERANCE = 1e-6  # relative to the largest element: right gradients are near 1e-9, and wrong ones above 1e-2
KINK = 0.1  # inputs are at least this far from 0, where ReLU has no derivative
B, T, N, C, V, NH = 2, 4, 5, 6, 7, 2


class Check(NamedTuple):
    """A call of a pair: the arrays to move, the gradient of each, and the loss that they give."""

    arrays: dict[str, Array]
    gradients: dict[str, Array]
    loss: Callable[[], float]


def check_gradients(functions: Any, names: Iterable[str] = ()) -> list[Comparison]:
    """Check the pairs that `functions` has, a backend, a module, or any object with functions.

    `names` says which pairs, such as "linear"; by default all: those of the contract, of which one function suffices
    because the other one is then NumPy's, and others with the arguments (out, inp) and (dinp, dout, inp). Returns the
    largest difference of each gradient, with its place and both values. Raises UserError if there is no pair, or if a
    function cannot be called so.
    """
    wanted = list(names) or found_pairs(functions)
    if not wanted:
        raise UserError("There is nothing to check: no function has a name such as gelu_forward or gelu_backward.")
    results: list[Comparison] = []
    for name in wanted:
        make = CONTRACT.get(name, _own)
        try:
            with np.errstate(all="ignore"):
                for label, check in make(Pair(functions, name), name):
                    results += _compared(label, check)
        except Exception as error:
            raise UserError(f"{name} cannot be checked: {type(error).__name__}: {reason(error)}.") from error
    return results


def found_pairs(functions: Any) -> list[str]:
    """Return the names of the pairs that an object has, those of the contract first and in its order."""
    have = {name for name in dir(functions) if callable(getattr(functions, name))}
    contract = [name for name in CONTRACT if have & {f"{name}_forward", f"{name}_backward", name}]
    whole = {name.removesuffix("_forward") for name in have if name.endswith("_forward")}
    own = sorted(name for name in whole if f"{name}_backward" in have and name not in CONTRACT)
    return [*contract, *own]


class Pair:
    """The functions of a pair; one that is missing, as of the contract it may be, is NumPy's."""

    def __init__(self, functions: Any, name: str) -> None:
        self._functions, self._name = functions, name

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        full = self._name if kind == "both" else f"{self._name}_{kind}"
        return getattr(self._functions, full, None) or getattr(get_backend("numpy"), full)  # type: ignore[no-any-return]


def numerical_gradient(loss: Callable[[], float], array: Array) -> Array:
    """Return d loss() / d array by central differences at every element, in float64. `array` is restored."""
    numerical = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + STEP
        above = loss()
        array[index] = kept - STEP
        numerical[index] = (above - loss()) / (2 * STEP)
        array[index] = kept
    return numerical


def _compared(label: str, check: Check) -> Iterator[Comparison]:
    for name, array in check.arrays.items():
        numerical = numerical_gradient(check.loss, array)
        gradient = check.gradients[name]
        scale = max(float(np.abs(numerical[np.isfinite(numerical)]).max(initial=0.0)), 1e-3)
        yield difference(f"d{name}", gradient, numerical, TOLERANCE, scale, label)


# --------------------------------------------------------------------------------------------------------------- calls


class Numbers:
    """Random arrays, the same in each check."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def __call__(self, *shape: int) -> Array:
        numbers = self._generator.normal(size=shape)
        return numbers + np.copysign(KINK, numbers)


Checks = Iterator[tuple[str, Check]]


def _own(pair: Any, name: str) -> Checks:
    """(out, inp) and (dinp, dout, inp), all of one shape."""
    numbers = Numbers()
    inp, dout = numbers(N, C), numbers(N, C)

    def loss() -> float:
        out = numbers(N, C)
        pair.forward(out, inp)
        return float((dout * out).sum())

    dinp = numbers(N, C)
    pair.backward(dinp, dout.copy(), inp.copy())
    yield name, Check({"inp": inp}, {"inp": dinp}, loss)


def _dropout(pair: Any, name: str) -> Checks:
    rate, key = 0.4, 12345
    forward, backward = pair.forward, pair.backward
    fixed = SimpleNamespace(
        forward=lambda out, inp: forward(out, inp, rate, key),
        backward=lambda dinp, dout, inp: backward(dinp, dout, rate, key),
    )
    yield from _own(fixed, f"{name}, rate {rate}")


def _embedding(pair: Any, name: str) -> Checks:
    numbers, tokens = Numbers(), np.array([[0, 3, 0, 5], [5, 6, 1, 0]], np.int32)
    tables = {"token_table": numbers(V, C), "position_table": numbers(T, C)}
    dout = numbers(B, T, C)

    def loss() -> float:
        out = numbers(B, T, C)
        pair.forward(out, tokens, *tables.values())
        return float((dout * out).sum())

    before = [numbers(*table.shape) for table in tables.values()]
    added = [each.copy() for each in before]
    pair.backward(*added, dout.copy(), tokens)
    yield name, Check(tables, dict(zip(tables, _differences(added, before), strict=True)), loss)


def _layernorm(pair: Any, name: str) -> Checks:
    for residual in (False, True):
        numbers = Numbers()
        arrays = {"inp": numbers(N, C), "weight": numbers(C), "bias": numbers(C)}
        dout, dresidual = numbers(N, C), numbers(N, C) if residual else None
        mean, rstd = numbers(N), numbers(N)

        def loss(arrays: dict[str, Array] = arrays, dout: Array = dout, dresidual: Array | None = dresidual) -> float:
            out = np.empty((N, C))
            pair.forward(out, np.empty(N), np.empty(N), *arrays.values())
            around = 0.0 if dresidual is None else (dresidual * arrays["inp"]).sum()
            return float((dout * out).sum() + around)

        pair.forward(np.empty((N, C)), mean, rstd, *arrays.values())
        dinp, before = numbers(N, C), [numbers(C), numbers(C)]
        added = [each.copy() for each in before]
        options = {} if dresidual is None else {"dresidual": dresidual.copy()}
        pair.backward(dinp, *added, dout.copy(), arrays["inp"].copy(), arrays["weight"], mean, rstd, **options)
        found = dict(zip(arrays, [dinp, *_differences(added, before)], strict=True))
        yield f"{name}{', dresidual' if residual else ''}", Check(arrays, found, loss)


def _linear(pair: Any, name: str) -> Checks:
    """With a gradient that goes around the layer; also behind an activation, whose preactivation is then the input."""
    for activation in (None, "gelu", "gelu_erf", "relu"):
        numbers = Numbers()
        arrays = {"inp": numbers(N, C), "weight": numbers(C, V), "bias": numbers(V)}
        dout, dresidual = numbers(N, V), numbers(N, C)
        activate: Callable[[Array, Array], Any] = getattr(get_backend("numpy"), f"{activation or 'relu'}_forward")

        def activated(
            inp: Array, activation: str | None = activation, activate: Callable[[Array, Array], Any] = activate
        ) -> Array:
            out = inp.copy()
            if activation:
                activate(out, inp)
            return out

        def loss(
            arrays: dict[str, Array] = arrays, dout: Array = dout, dresidual: Array = dresidual,
            activated: Callable[[Array], Array] = activated,
        ) -> float:  # fmt: skip
            out = np.empty((N, V))
            pair.forward(out, activated(arrays["inp"]), arrays["weight"], arrays["bias"])
            return float((dout * out).sum() + (dresidual * arrays["inp"]).sum())

        dinp, before = numbers(N, C), [numbers(C, V), numbers(V)]
        added = [each.copy() for each in before]
        given = {"activation": activation, "preactivation": arrays["inp"].copy()} if activation else {}
        pair.backward(dinp, *added, dout.copy(), activated(arrays["inp"]), arrays["weight"],
                      dresidual=dresidual.copy(), **given)  # fmt: skip
        found = dict(zip(arrays, [dinp, *_differences(added, before)], strict=True))
        yield f"{name}{f' behind {activation}' if activation else ''}", Check(arrays, found, loss)


def _rotary(pair: Any, name: str) -> Checks:
    """In place, with angles that no positions have."""
    numbers, H = Numbers(), 3
    qkv, dout, angles = numbers(B, T, 6 * NH * H), numbers(B, T, 6 * NH * H), numbers(T, H)
    tables = np.cos(angles), np.sin(angles)

    def loss() -> float:
        out = qkv.copy()
        pair.forward(out, *tables)
        return float((dout * out).sum())

    dqkv = dout.copy()
    pair.backward(dqkv, *tables)
    yield name, Check({"qkv": qkv}, {"qkv": dqkv}, loss)


def _attention(pair: Any, name: str) -> Checks:
    for rate, window in ((0.0, 0), (0.4, 0), (0.0, 2)):
        numbers, options = Numbers(), {"dropout_rate": rate, "dropout_key": 12345} if rate else {}
        options |= {"window": window} if window else {}
        qkv, dout = numbers(B, T, 3 * C), numbers(B, T, C)
        out, lse, dqkv = numbers(B, T, C), numbers(B, NH, T), numbers(B, T, 3 * C)

        def loss(qkv: Array = qkv, dout: Array = dout, options: dict[str, Any] = options) -> float:
            out = np.empty((B, T, C))
            pair.forward(out, np.empty((B, NH, T)), qkv, **options)
            return float((dout * out).sum())

        pair.forward(out, lse, qkv, **options)
        pair.backward(dqkv, dout.copy(), qkv.copy(), out, lse, **options)
        what = f", dropout {rate}" if rate else f", window {window}" if window else ""
        yield f"{name}{what}", Check({"qkv": qkv}, {"qkv": dqkv}, loss)


def _cross_entropy(pair: Any, name: str) -> Checks:
    numbers, scale = Numbers(), 0.25
    logits, targets = numbers(N, V), np.array([0, 6, 3, 3, 1], np.int32)

    def loss() -> float:
        losses = np.empty(N)
        pair.both(losses, None, logits, targets)
        return scale * float(losses.sum())

    dlogits = numbers(N, V)
    pair.both(np.empty(N), dlogits, logits.copy(), targets, scale=scale)
    yield name, Check({"logits": logits}, {"logits": dlogits}, loss)


def _differences(after: list[Array], before: list[Array]) -> list[Array]:
    """Return what was added to each array."""
    return [one - other for one, other in zip(after, before, strict=True)]


CONTRACT: dict[str, Callable[[Any, str], Checks]] = {
    "embedding": _embedding, "layernorm": _layernorm, "linear": _linear, "relu": _own, "gelu": _own,
    "gelu_erf": _own, "rotary": _rotary, "attention": _attention, "dropout": _dropout, "cross_entropy": _cross_entropy,
}  # fmt: skip
