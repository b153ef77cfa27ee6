"""Find where a NaN or an infinity arose: recompute a step and check each array as soon as a kernel has written it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..agreement.crosscheck import LiveCrosscheck
from ..kernels.contract import OPERATIONS, Backend
from ..model.activations import Activations
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .step import Trainer

Array = NDArray[Any]
Region = tuple[int, int, str]  # address of the first byte, address after the last byte, name of the array
GRADIENT = "the gradient of "
LAYER = re.compile(r"h\.\d+(?=\.)")


def describe_origin(step: int, trainer: Trainer, crosscheck: LiveCrosscheck | None) -> str:
    """Say which value of a step was the first that is not finite, and what the other backend computes, if there is one.

    Both gradients are 0 afterwards.
    """
    found = first_not_finite(trainer.model, trainer.gradients, trainer.microbatches(step))
    origin = f"the first non-finite value is {found}" if found else "when recomputed, all values are finite"
    if crosscheck is not None:
        other = crosscheck.model
        found = first_not_finite(other, crosscheck.gradients, trainer.microbatches(step))
        result = f"the first non-finite value is {found}" if found else "all values are finite"
        origin += f"; with the {other.backend.name} backend, {result}"
    return origin


def first_not_finite(
    model: GPT, gradients: Parameters, batches: Iterable[tuple[Array, Array, DropoutStream]]
) -> str | None:
    """Describe the first value that is not finite, in the order of computation: weights, activations, gradients.

    `batches` are (tokens, targets, dropout stream). `gradients` is overwritten and 0 afterwards. Returns None if
    everything is finite.
    """
    for name, view in model.parameters.items():
        if not np.isfinite(view).all():
            index = np.argwhere(~np.isfinite(view))[0]
            return f"the weight {name}{index.tolist()}, which is {view[tuple(index)]} before the step"
    backend, todo = model.backend, list(batches)
    gradients.flat.fill(0)
    try:
        for tokens, targets, dropout in todo:
            regions = _regions(model.buffers(*tokens.shape), model.parameters, gradients)
            model.backend = cast(Backend, _CheckingBackend(backend, regions))
            model.loss_and_gradients(tokens, targets, gradients, scale=1.0 / len(todo), dropout=dropout)
    except _NotFinite as found:
        return str(found)
    finally:
        model.backend = backend
        gradients.flat.fill(0)
    return None


def _regions(acts: Activations, weights: Parameters, gradients: Parameters) -> list[Region]:
    """Return the memory of every named array of a model."""
    named: list[tuple[str, Array]] = [("embedded", acts.embedded)]
    for layer, block in enumerate(acts.blocks):
        for name, array in vars(block).items():
            shared = len(acts.blocks) > 1 and array is getattr(acts.blocks[layer - 1], name)  # with --recompute
            named.append((name if shared else f"{name} of layer {layer} (h.{layer})", array))
    named += [(name, value) for name, value in vars(acts).items() if isinstance(value, np.ndarray)]
    named += list(weights.items())
    named += [(GRADIENT + name, view) for name, view in gradients.items()]
    regions = []
    for name, array in named:
        if isinstance(array, np.ndarray):
            start = array.__array_interface__["data"][0]
            regions.append((start, start + array.nbytes, name))
    return regions


class _NotFinite(Exception):
    """A kernel wrote a NaN or an infinity; the message describes the first."""


class _CheckingBackend:
    """A backend that raises _NotFinite after the first call that leaves a NaN or an infinity in one of its arrays."""

    def __init__(self, backend: Any, regions: list[Region]) -> None:
        self._backend, self._regions = backend, regions
        self._layer = ""  # the layer of the last call that was given a weight, such as "h.3"; empty outside the layers

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
            for array in arrays:  # outputs come first; the inputs were checked as outputs of earlier calls
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise _NotFinite(self._describe(array, operation, weight))
            return result

        return call

    def _weight(self, arrays: list[Array]) -> str | None:
        """Return the name of the weight that is, or whose gradient is, among the arrays of a call."""
        names = (self._name(array) for array in arrays)
        return next((name.removeprefix(GRADIENT) for name in names if name and name.endswith(".weight")), None)

    def _describe(self, array: Array, operation: str, weight: str | None) -> str:
        index = np.argwhere(~np.isfinite(array))[0]
        name = self._name(array) or "an array"
        if weight is not None:
            how = operation if weight in name else f"{operation} with {weight}"
        else:
            how = f"{operation} at {self._layer}" if self._layer and self._layer not in name else operation
        return f"{name}{index.tolist()}, which is {array[tuple(index)]} after {how}"

    def _name(self, array: Array) -> str | None:
        """Return the name of the array in whose memory this one begins."""
        address = array.__array_interface__["data"][0]
        return next((name for start, end, name in self._regions if start <= address < end), None)
