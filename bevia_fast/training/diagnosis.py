"""Where numbers went wrong: a step is computed again, and each array looked at as soon as a kernel has written it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..kernels.contract import OPERATIONS, Backend
from ..model.activations import Activations
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.parameters import Parameters

Array = NDArray[Any]
Place = tuple[int, int, str]  # first byte, byte after the last, name
GRADIENT = "the gradient of "
LAYER = re.compile(r"h\.\d+(?=\.)")


class _NotFinite(Exception):
    """The first array with a NaN or an infinity in it."""


class _LookingBackend:
    """A backend that raises _NotFinite after the first call that leaves an array which is not finite."""

    def __init__(self, backend: Any, places: list[Place]) -> None:
        self._backend, self._places = backend, places
        self._layer = ""  # "h.3" from the first call with one of its weights to the first with another's

    def __getattr__(self, operation: str) -> Any:
        if operation not in OPERATIONS:
            raise AttributeError(operation)
        kernel = getattr(self._backend, operation)

        def call(*args: Any, **options: Any) -> Any:
            result = kernel(*args, **options)
            arrays = [value for value in (*args, *options.values()) if isinstance(value, np.ndarray)]
            weight = self._weight(arrays)
            if weight is not None:
                found = LAYER.match(weight)
                self._layer = found[0] if found else ""
            for array in arrays:  # outputs come first; the inputs were outputs of calls before
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise _NotFinite(self._describe(array, operation, weight))
            return result

        return call

    def _weight(self, arrays: list[Array]) -> str | None:
        """The name of the weight that a call is given, or whose gradient."""
        names = (self._name(array) for array in arrays)
        return next((name.removeprefix(GRADIENT) for name in names if name and name.endswith(".weight")), None)

    def _describe(self, array: Array, operation: str, weight: str | None) -> str:
        place = np.argwhere(~np.isfinite(array))[0]
        name = self._name(array) or "an array"
        if weight is not None:
            how = operation if weight in name else f"{operation} with {weight}"
        else:
            how = f"{operation} at {self._layer}" if self._layer and self._layer not in name else operation
        return f"{name}{place.tolist()}, which is {array[tuple(place)]} after {how}"

    def _name(self, array: Array) -> str | None:
        """What the array is called whose memory this one begins in."""
        address = array.__array_interface__["data"][0]
        return next((name for start, end, name in self._places if start <= address < end), None)


def first_not_finite(
    model: GPT, gradients: Parameters, batches: Iterable[tuple[Array, Array, DropoutStream]]
) -> str | None:
    """The first tensor, in the order of computation, that is not finite: weights, activations, then gradients.

    `batches` are (tokens, targets, dropout stream). What is in `gradients` is lost; they are 0 afterwards. None if all
    is finite.
    """
    for name, view in model.parameters.items():
        if not np.isfinite(view).all():
            place = np.argwhere(~np.isfinite(view))[0]
            return f"the weight {name}{place.tolist()}, which is {view[tuple(place)]} before the step"
    backend, todo = model.backend, list(batches)
    gradients.flat.fill(0)
    try:
        for tokens, targets, dropout in todo:
            places = _places(model.buffers(*tokens.shape), model.parameters, gradients)
            model.backend = cast(Backend, _LookingBackend(backend, places))
            model.loss_and_gradients(tokens, targets, gradients, scale=1.0 / len(todo), dropout=dropout)
    except _NotFinite as found:
        return str(found)
    finally:
        model.backend = backend
        gradients.flat.fill(0)
    return None


def _places(acts: Activations, weights: Parameters, gradients: Parameters) -> list[Place]:
    named: list[tuple[str, Array]] = [("embedded", acts.embedded)]
    for layer, block in enumerate(acts.blocks):
        for name, array in vars(block).items():
            shared = len(acts.blocks) > 1 and array is getattr(acts.blocks[layer - 1], name)  # with recompute
            named.append((name if shared else f"{name} of layer {layer} (h.{layer})", array))
    named += [(name, value) for name, value in vars(acts).items() if isinstance(value, np.ndarray)]
    named += list(weights.items())
    named += [(GRADIENT + name, view) for name, view in gradients.items()]
    places = []
    for name, array in named:
        if isinstance(array, np.ndarray):
            start = array.__array_interface__["data"][0]
            places.append((start, start + array.nbytes, name))
    return places
