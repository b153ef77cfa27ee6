"""The checks in front of every kernel: `implements`, and the checks of values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import numpy as np

from .declaration import OPERATIONS, Array, ContractError, Operation, P, R
from .newton_schulz import MatrixAt

Activation = Literal["relu", "gelu", "gelu_erf"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
Norm = Literal["pre", "post"]
Precision = Literal["float32", "bf16"]  # of the operands of products; see `kernels.bfloat16`
UNCHECKED = "unchecked"  # the attribute of an operation that holds the function behind the checks
REMEMBERED = 4096  # combinations of arguments that passed; tests meet many shapes


def implements(contract_function: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Decorate a backend's implementation of an operation with the checks of the contract.

    A training step makes the same calls thousands of times. So each combination of shapes, strides and dtypes is
    checked once and remembered. Token ids are checked in every call: with an id out of range, compiled code would read
    memory outside of the table.
    """
    entry = OPERATIONS[contract_function.__name__]
    parameters = list(entry.signature.parameters)
    ids = [(spec.name, parameters.index(spec.name), spec.below) for spec in entry.arrays if spec.below]
    seen: dict[tuple[Any, ...], dict[str, int]] = {}

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            key = (*_fingerprint(args), *kwargs, *_fingerprint(kwargs.values()))
            letters = seen.get(key)
            if letters is None:
                try:
                    bound = entry.signature.bind(*args, **kwargs)
                except TypeError as error:
                    raise TypeError(f"{entry.name}: {error}") from None
                _check_words(entry.name, bound.arguments)
                letters = entry.dims(bound.arguments)
                _check_precision(entry, bound.arguments)
                entry.check_outputs(bound.arguments)
                if len(seen) >= REMEMBERED:
                    seen.clear()
                seen[key] = letters
            for name, position, below in ids:
                tokens: Any = args[position] if position < len(args) else kwargs[name]
                check_ids(entry.name, name, tokens, letters[below])
            return function(*args, **kwargs)

        setattr(checked, UNCHECKED, function)
        return checked

    return decorate


def _fingerprint(arguments: Iterable[Any]) -> list[Any]:
    """Everything about the arguments that the check depends on, as a flat list, because every call waits for it."""
    found: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            found += (argument.shape, argument.strides, argument.dtype, argument.flags.writeable)
        elif argument is None or isinstance(argument, str):
            found.append(argument)
        else:
            found.append(type(argument))
    return found


def _check_words(operation_name: str, arguments: dict[str, Any]) -> None:
    """Raise ContractError for an unknown norm or activation, or an activation without its preactivation."""
    activation, norm = arguments.get("activation"), arguments.get("norm", "pre")
    if norm not in ("pre", "post"):
        raise ContractError(f"{operation_name}: norm is {norm!r}; wanted 'pre' or 'post'")
    if activation is None and operation_name != "decode_tokens":
        return
    if activation not in ACTIVATIONS:
        raise ContractError(
            f"{operation_name}: activation is {activation!r}; wanted None, 'relu', 'gelu' or 'gelu_erf'"
        )
    if operation_name == "linear_backward" and arguments.get("preactivation") is None:
        raise ContractError("linear_backward: activation is given but preactivation is missing")


def _check_precision(entry: Operation, arguments: dict[str, Any]) -> None:
    """Raise ContractError for an unknown precision, or for operands in bfloat16 among float64 arrays."""
    precision = arguments.get("precision", "float32")
    if precision not in ("float32", "bf16"):
        raise ContractError(f"{entry.name}: precision is {precision!r}; wanted 'float32' or 'bf16'")
    first = next(spec.name for spec in entry.arrays if not spec.below)
    if precision == "bf16" and arguments[first].dtype != np.float32:
        raise ContractError(f"{entry.name}: {first} has dtype float64; wanted float32 with precision 'bf16'")


def check_ids(operation_name: str, argument: str, tokens: Array, below: int) -> None:
    """Raise ContractError if an id, of any integer dtype, is not in [0, below)."""
    if tokens.dtype == np.int32:
        wrong = int(tokens.view(np.uint32).max()) >= below  # as unsigned integers, negative ids are the largest
    else:
        wrong = int(tokens.min()) < 0 or int(tokens.max()) >= below
    if wrong:
        where = tuple(int(i) for i in np.argwhere((tokens < 0) | (tokens >= below))[0])
        raise ContractError(f"{operation_name}: {argument}{list(where)} is {tokens[where]}; wanted 0 <= id < {below}")


def check_decoding(keys: Array, positions: tuple[Array | None, ...], V: int, token: int, index: int) -> None:
    """Raise ContractError if the first token of `decode_tokens` is not in [0, V), its index is negative, or its
    `positions`, which are position_table, cosines and sines, do not go together or with the caches."""
    position_table, cosines, sines = positions
    given = {"position_table": position_table, "cosines": cosines, "sines": sines}
    absent = [name for name, array in given.items() if array is None]
    if absent not in (["position_table"], ["cosines", "sines"]):
        what = f"{absent[-1]} is missing" if len(absent) in (1, 2) else f"{'all' if not absent else 'none'} are given"
        raise ContractError(f"decode_tokens: {what}; wanted either position_table, or cosines and sines")
    windows, (K, *_, HS) = (1 if position_table is None else 2), keys.shape
    if windows != K:
        raise ContractError(f"decode_tokens: keys has shape {keys.shape}; wanted (K, L, NH, S, HS) with K = {windows}")
    if cosines is not None and 2 * cosines.shape[1] != HS:
        raise ContractError(f"decode_tokens: cosines has shape {cosines.shape}; wanted (D, H) with 2*H = HS = {HS}")
    if not 0 <= token < V:
        raise ContractError(f"decode_tokens: token is {token}; wanted 0 <= token < {V}")
    if index < 0:
        raise ContractError(f"decode_tokens: index is {index}; wanted index >= 0")


def check_windows(L: int, windows: tuple[int, ...]) -> None:
    """Raise ContractError if the `windows` of `decode_tokens` do not fit L layers, or one is negative."""
    if len(windows) not in (0, L):
        raise ContractError(f"decode_tokens: windows has {len(windows)} numbers; wanted one for each of L = {L} layers")
    for window in windows:
        check_window("decode_tokens", window)


def check_rows(T: int, R: int, first: int) -> None:
    """Raise ContractError if the rows that `attention_weights` should return are not in [0, T)."""
    if not 0 <= first <= T - R:
        raise ContractError(f"attention_weights: first is {first}; wanted 0 <= first <= T - R = {T - R}")


def check_window(operation_name: str, window: int) -> None:
    """Raise ContractError if a window of attention is negative."""
    if window < 0:
        raise ContractError(f"{operation_name}: window is {window}; wanted window >= 0, where 0 is no window")


@functools.lru_cache(64)
def check_matrices(matrices: tuple[MatrixAt, ...], size: int) -> None:
    """Raise ContractError if a matrix is not inside of `size` elements, or overlaps another one."""
    for number, (start, rows, columns, stride) in enumerate(matrices):
        last = start + (rows - 1) * stride + columns
        if not (start >= 0 and rows > 0 and 0 < columns <= stride and last <= size):
            raise ContractError(
                f"muon: matrices[{number}] is {rows} x {columns} from element {start} on, with rows {stride} apart; "
                f"wanted a matrix inside of P = {size} elements"
            )
    begins = [start + stride * np.arange(rows) for start, rows, _, stride in matrices]
    ends = [begin + matrix.columns for begin, matrix in zip(begins, matrices, strict=True)]
    if matrices:
        order = np.argsort(np.concatenate(begins))
        if (np.concatenate(begins)[order][1:] < np.concatenate(ends)[order][:-1]).any():
            raise ContractError("muon: two of the matrices overlap; wanted matrices that do not")
