from __future__ import annotations

import ast
import inspect
import re
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, make_arguments
from bevia_fast.agreement.tolerances import outputs
from bevia_fast.kernels import contract, get_backend
from bevia_fast.kernels.contract import OPERATIONS, ArraySpec, Backend, ContractError, MatrixAt

# One call of each operation with every optional array given and no dimension of 1.
CALLS = {
    case.operation: case
    for case in [
        Case("embedding_forward", {"B": 2, "T": 3, "V": 5, "C": 4}, ("position_table",)),
        Case("embedding_backward", {"B": 2, "T": 3, "V": 5, "C": 4}, ("dposition_table",)),
        Case("layernorm_forward", {"N": 6, "C": 4}, ("bias",)),
        Case("layernorm_backward", {"N": 6, "C": 4}, ("dbias", "dresidual")),
        Case(
            "linear_forward", {"N": 6, "C": 4, "OC": 3}, ("bias", "preactivation", "residual"), {"activation": "gelu"},
        ),
        Case(
            "linear_backward", {"N": 6, "C": 4, "OC": 3}, ("dbias", "preactivation", "dresidual"),
            {"activation": "relu"},
        ),
        Case("relu_forward", {"N": 6, "C": 4}),
        Case("relu_backward", {"N": 6, "C": 4}),
        Case("gelu_forward", {"N": 6, "C": 4}),
        Case("gelu_backward", {"N": 6, "C": 4}),
        Case("gelu_erf_forward", {"N": 6, "C": 4}),
        Case("gelu_erf_backward", {"N": 6, "C": 4}),
        Case("rotary_forward", {"B": 2, "T": 5, "NH": 2, "H": 3}),
        Case("rotary_backward", {"B": 2, "T": 5, "NH": 2, "H": 3}),
        Case("attention_forward", {"B": 2, "T": 5, "NH": 2, "HS": 3, "C": 6}, options={"dropout_rate": 0.5}),
        Case("attention_backward", {"B": 2, "T": 5, "NH": 2, "HS": 3, "C": 6}, options={"dropout_rate": 0.5}),
        Case("attention_weights", {"B": 2, "NH": 2, "C": 6, "T": 5, "R": 2}, options={"first": 1}),
        Case(
            "decode_tokens", {"D": 2, "V": 5, "L": 2, "NH": 2, "HS": 6, "S": 4, "C": 6, "G": 2, "M": 7, "K": 2,
                              "H": 3},
            ("position_table", "ln_1_bias", "qkv_bias", "attn_proj_bias", "ln_2_bias", "fc_bias", "mlp_proj_bias",
             "ln_f_bias"),
            {"token": 1, "index": 2, "norm": "pre", "activation": "gelu", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
             "key": 1, "draw": 0},
        ),
        Case("sample_token", {"V": 7}, options={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "noise": 0.5}),
        Case("dropout_forward", {"N": 6, "C": 4}, ("residual",), {"rate": 0.5, "key": 1}),
        Case("dropout_backward", {"N": 6, "C": 4}, (), {"rate": 0.5, "key": 1}),
        Case("cross_entropy", {"N": 6, "V": 5}, ("dlogits",)),
        Case("squared_norm", {"P": 7}),
        Case(
            "adamw", {"P": 7}, (),
            {
                "step": 1, "decayed": 3, "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8,
                "weight_decay": 0.1,
            },
        ),
        Case(
            "muon", {"P": 7}, (),
            {"matrices": (MatrixAt(1, 2, 3, 3),), "learning_rate": 0.1, "beta": 0.9, "weight_decay": 0.1},
        ),
    ]
}  # fmt: skip

# The arrays of rotary positions are given instead of position_table, and the caches are one ring.
RING = replace(
    CALLS["decode_tokens"], dims={**CALLS["decode_tokens"].dims, "K": 1},
    given=("cosines", "sines", *CALLS["decode_tokens"].given[1:]),
)  # fmt: skip

ARRAYS = [(name, spec) for name, entry in OPERATIONS.items() for spec in entry.arrays]
NAMES = [f"{name}-{spec.name}" for name, spec in ARRAYS]
each_array = pytest.mark.parametrize(("operation", "spec"), ARRAYS, ids=NAMES)


def refusal(backend: Backend, operation: str, arguments: dict[str, Any]) -> str:
    """The message of the ContractError that the call gives; fails if there is none or if any array was written."""
    before = {name: value.copy() for name, value in arguments.items() if isinstance(value, np.ndarray)}
    with pytest.raises(ContractError) as caught:
        getattr(backend, operation)(**arguments)
    for name, value in before.items():
        np.testing.assert_array_equal(arguments[name], value, err_msg=f"{name} was written")
    return str(caught.value)


def call(operation: str, dtype: str = "float32", array: str = "") -> dict[str, Any]:
    """The arguments of a call in which `array` is given."""
    return make_arguments(RING if array in ("cosines", "sines") and "decode" in operation else CALLS[operation], dtype)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_calls_of_this_file_are_accepted(backend: Backend, operation: str, dtype: str) -> None:
    getattr(backend, operation)(**call(operation, dtype))


@each_array
def test_wrong_number_of_dimensions(backend: Backend, operation: str, spec: ArraySpec) -> None:
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = arguments[spec.name][None]
    message = refusal(backend, operation, arguments)
    shape = arguments[spec.name].shape
    assert message.startswith(f"{operation}: {spec.name} has shape {shape}; wanted {spec.wanted()}")


@each_array
def test_wrong_size(backend: Backend, operation: str, spec: ArraySpec) -> None:
    """One row more. The first array to have a letter decides what it stands for, so another may be the one blamed."""
    arguments = call(operation, array=spec.name)
    array = arguments[spec.name]
    arguments[spec.name] = np.concatenate([array, array[:1]])
    if operation in ("squared_norm", "sample_token") or (operation, spec.name) in {
        ("embedding_forward", "token_table"), ("decode_tokens", "drawn"), ("rotary_forward", "qkv"),
        ("rotary_backward", "dqkv"),
    }:  # fmt: skip
        return  # its size is its own, or its first axis is
    if (operation, spec.name) == ("embedding_backward", "dtoken_table"):
        return
    message = refusal(backend, operation, arguments)
    assert message.startswith(f"{operation}: ")
    assert "has shape" in message


@each_array
def test_empty_array(backend: Backend, operation: str, spec: ArraySpec) -> None:
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = arguments[spec.name][:0]
    assert "has shape (0," in refusal(backend, operation, arguments)


@each_array
def test_wrong_dtype(backend: Backend, operation: str, spec: ArraySpec) -> None:
    wanted = "int32" if spec.below else "float32 or float64"
    for dtype in (np.float16, np.int64, np.complex64, np.dtype(np.float32).newbyteorder(), np.bool_):
        arguments = call(operation, array=spec.name)
        with np.errstate(all="ignore"):
            arguments[spec.name] = arguments[spec.name].real.astype(dtype)
        message = refusal(backend, operation, arguments)
        assert message == f"{operation}: {spec.name} has dtype {arguments[spec.name].dtype}; wanted {wanted}"


@each_array
def test_mixed_dtypes(backend: Backend, operation: str, spec: ArraySpec) -> None:
    floats = [s.name for s in OPERATIONS[operation].arrays if not s.below]
    if spec.below or len(floats) == 1:
        return
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = arguments[spec.name].astype(np.float64)
    blamed = spec.name if spec.name != floats[0] else floats[1]
    assert refusal(backend, operation, arguments).startswith(f"{operation}: {blamed} has dtype float")


@each_array
def test_not_contiguous(backend: Backend, operation: str, spec: ArraySpec) -> None:
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = np.repeat(arguments[spec.name], 2, axis=-1)[..., ::2]
    message = refusal(backend, operation, arguments)
    assert message.startswith(f"{operation}: {spec.name} of shape {arguments[spec.name].shape} is not contiguous")


@each_array
def test_fortran_order_is_for_weights(backend: Backend, operation: str, spec: ArraySpec) -> None:
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = np.asfortranarray(arguments[spec.name])
    if arguments[spec.name].ndim == 1 or spec.either_order:
        getattr(backend, operation)(**arguments)
    else:
        assert f"{spec.name} of shape" in refusal(backend, operation, arguments)


@each_array
def test_read_only(backend: Backend, operation: str, spec: ArraySpec) -> None:
    """Also where the same call with an array that can be written has passed before."""
    if not spec.output:
        return
    getattr(backend, operation)(**call(operation, array=spec.name))
    arguments = call(operation, array=spec.name)
    arguments[spec.name].flags.writeable = False
    message = refusal(backend, operation, arguments)
    assert message == f"{operation}: {spec.name} is read-only; wanted an array to write to"


@each_array
def test_missing(backend: Backend, operation: str, spec: ArraySpec) -> None:
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = None
    needed = {"linear_backward": ("preactivation",), "decode_tokens": ("position_table", "cosines", "sines")}
    if spec.optional and spec.name not in needed.get(operation, ()):
        getattr(backend, operation)(**arguments)
    else:
        message = refusal(backend, operation, arguments)
        assert message.startswith(f"{operation}: ")
        assert f"{spec.name} is missing" in message or "none are given; wanted either position_table, or" in message
    del arguments[spec.name]
    if OPERATIONS[operation].signature.parameters[spec.name].default is inspect.Parameter.empty:
        with pytest.raises(TypeError, match=f"{operation}: .*{spec.name}"):
            getattr(backend, operation)(**arguments)


@each_array
def test_not_an_array(backend: Backend, operation: str, spec: ArraySpec) -> None:
    arguments = call(operation, array=spec.name)
    arguments[spec.name] = arguments[spec.name].tolist()
    assert refusal(backend, operation, arguments) == f"{operation}: {spec.name} is a list; wanted a NumPy array"


@pytest.mark.parametrize(("operation", "spec"), [(name, spec) for name, spec in ARRAYS if spec.below])
@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1, -(2**31)])
def test_id_out_of_range(backend: Backend, operation: str, spec: ArraySpec, bad: int) -> None:
    """Also where the same shapes have passed before."""
    getattr(backend, operation)(**call(operation))
    arguments = call(operation)
    index = tuple(size - 1 for size in arguments[spec.name].shape)
    arguments[spec.name][index] = bad
    message = refusal(backend, operation, arguments)
    assert message == f"{operation}: {spec.name}{list(index)} is {bad}; wanted 0 <= id < 5"


@pytest.mark.parametrize(
    ("operation", "option", "bad"),
    [
        ("decode_tokens", "token", -1),
        ("decode_tokens", "token", 5),
        ("decode_tokens", "index", -1),
        ("decode_tokens", "activation", "swish"),
        ("decode_tokens", "norm", "both"),
        ("attention_weights", "first", -1),
        ("attention_weights", "first", 4),
        ("linear_forward", "activation", "swish"),
        ("linear_backward", "activation", "swish"),
    ],
)
def test_option_out_of_range(backend: Backend, operation: str, option: str, bad: object) -> None:
    getattr(backend, operation)(**call(operation))
    message = refusal(backend, operation, call(operation) | {option: bad})
    assert message.startswith(f"{operation}: {option} is {bad!r}")
    assert message == refusal(get_backend("numpy"), operation, call(operation) | {option: bad})


@pytest.mark.parametrize("operation", ["attention_forward", "attention_backward", "attention_weights"])
def test_heads_that_do_not_divide_the_channels(backend: Backend, operation: str) -> None:
    arguments = call(operation)
    name = "weights" if operation == "attention_weights" else "lse"
    arguments[name] = np.concatenate([arguments[name]] * 2, axis=1)
    assert "C = 6 is not divisible by NH = 4" in refusal(backend, operation, arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sines": None}, "sines is missing; wanted either position_table, or cosines and sines"),
        ({"position_table": np.zeros((4, 6), np.float32)}, "all are given; wanted either position_table, or"),
        ({"cosines": None, "sines": None}, "none are given; wanted either position_table, or cosines and sines"),
        (
            {"cosines": np.zeros((2, 2), np.float32), "sines": np.zeros((2, 2), np.float32)},
            r"cosines has shape \(2, 2\); wanted \(D, H\) with 2\*H = HS = 6",
        ),
        (
            {"keys": np.zeros((2, 2, 2, 4, 6), np.float32), "values": np.zeros((2, 2, 2, 4, 6), np.float32)},
            r"keys has shape \(2, 2, 2, 4, 6\); wanted \(K, L, NH, S, HS\) with K = 1",
        ),
    ],
)
def test_positions_that_do_not_go_together(backend: Backend, changes: dict[str, Any], words: str) -> None:
    arguments = make_arguments(RING, "float32")
    backend.decode_tokens(**arguments)
    assert re.search(words, refusal(backend, "decode_tokens", arguments | changes))


def test_a_message_says_what_was_wanted(backend: Backend) -> None:
    arguments = call("linear_forward")
    arguments["bias"] = np.zeros(4, np.float32)
    message = refusal(backend, "linear_forward", arguments)
    assert message == "linear_forward: bias has shape (4,); wanted (OC,) with N = 6, OC = 3, C = 4"


# --------------------------------------------------------------------------------------------------------------------
# The mirror
# --------------------------------------------------------------------------------------------------------------------


def marks_operation(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).startswith("implements(") for decorator in function.decorator_list)


def functions_by_file(backend: Any) -> dict[str, set[str]]:
    """The functions that each file of a backend marks as implementing an operation. A backward pass may stand in a file
    of its own, named after that of the forward pass: linear.py, linear_backward.py."""
    found: dict[str, set[str]] = {}
    for path in Path(backend.__file__).parent.glob("*.py"):
        if not path.name.startswith("_"):
            functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
            name = path.stem.removesuffix("_backward")
            found.setdefault(name, set()).update(node.name for node in functions if marks_operation(node))
    return found


def test_both_backends_have_the_same_functions_in_the_same_files() -> None:
    numpy, numba = functions_by_file(get_backend("numpy")), functions_by_file(get_backend("numba"))
    assert numpy == numba
    assert set().union(*numpy.values()) == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_outputs_come_first_and_have_limits(operation: str) -> None:
    entry = OPERATIONS[operation]
    found = {spec.name for spec in entry.arrays if spec.output}
    assert found == set(outputs(operation)) - {"return"}
    optional = {spec.name for spec in entry.arrays if spec.optional}
    first = [name for name in entry.signature.parameters if name not in optional][: len(found - optional)]
    assert set(first) == found - optional


@pytest.mark.parametrize("operation", OPERATIONS)
def test_signature_is_the_contract_s(backend: Backend, operation: str) -> None:
    function = getattr(backend, operation)
    assert isinstance(function, FunctionType)
    assert inspect.signature(function) == OPERATIONS[operation].signature
    assert operation in backend.__all__  # type: ignore[attr-defined]


def test_backend_lists_every_operation() -> None:
    listed = {name for name, value in vars(Backend).items() if isinstance(value, staticmethod)}
    assert listed == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_a_formula_and_a_cost(operation: str) -> None:
    assert OPERATIONS[operation].doc
    for case in cases(operation):
        arguments = make_arguments(case, "float32")
        cost, double = (OPERATIONS[operation].cost(**make_arguments(case, dtype)) for dtype in ("float32", "float64"))
        copies = operation == "embedding_forward" and not case.given
        assert (cost.flops == 0) == copies
        assert cost.flops >= 0
        assert cost.flops == double.flops
        if not OPERATIONS[operation].gathered:  # else not all rows of a table are moved
            assert sum(array.nbytes for array in arguments.values() if isinstance(array, np.ndarray)) <= cost.bytes
        assert cost.intensity == cost.flops / cost.bytes


def test_cost_of_a_product_is_the_textbook_s() -> None:
    arguments = make_arguments(Case("linear_forward", {"N": 6, "C": 4, "OC": 3}), "float32")
    cost = OPERATIONS["linear_forward"].cost(**arguments)
    assert (cost.flops, cost.bytes) == (2 * 6 * 4 * 3, 4 * (6 * 3 + 6 * 4 + 4 * 3))


def test_backends_are_asked_for_by_name() -> None:
    assert get_backend("numpy").name == "numpy"
    assert get_backend("numba").name == "numba"
    with pytest.raises(ValueError, match="unknown backend 'torch'; there are 'numpy' and 'numba'"):
        get_backend("torch")


def test_unreadable_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="unreadable shape"):
        contract.ArraySpec.parse("x", "N, C")
