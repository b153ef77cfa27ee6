"""The same bits from any number of threads, from run to run, and wherever the arrays lie."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import in_a_process

from bevia_fast import kernels
from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, make_arguments, run
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, MatrixAt
from bevia_fast.kernels.memory import CACHE_LINE, aligned_empty
from bevia_fast.kernels.numba_jit._runtime import threads as kernel_threads

# Large enough that every thread gets a part, and no part is like another.
_ADAMW = {"step": 2, "decayed": 600_001, "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8,
          "weight_decay": 0.1}  # fmt: skip
_MUON = {"matrices": tuple(MatrixAt(3 + 30_000 * n, 97 + n, 131, 131 + 9 * n) for n in range(6)),
         "learning_rate": 0.1, "beta": 0.9, "weight_decay": 0.1}  # fmt: skip
_HEADS = {"B": 3, "T": 197, "NH": 3, "HS": 31, "C": 93}
_DECODING = {"token": 3, "index": 7, "norm": "pre", "activation": "gelu", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
             "key": 5, "draw": 0}  # fmt: skip
_SIZES = {"D": 60, "V": 131, "L": 2, "NH": 5, "S": 50, "C": 93, "G": 5, "M": 127, "H": 15}
_DROPOUT = {"dropout_rate": 0.1, "dropout_key": 3}
LARGE = [
    Case("embedding_forward", {"B": 7, "T": 211, "V": 61, "C": 131}, ("position_table",)),
    Case("embedding_backward", {"B": 7, "T": 211, "V": 61, "C": 131}, ("dposition_table",)),
    Case("rotary_forward", {"B": 3, "T": 67, "NH": 3, "H": 13}),
    Case("rotary_backward", {"B": 3, "T": 67, "NH": 3, "H": 13}),
    Case("layernorm_forward", {"N": 1999, "C": 131}, ("bias",)),
    Case("layernorm_backward", {"N": 1999, "C": 131}, ("dbias", "dresidual")),
    Case("linear_forward", {"N": 1511, "C": 131, "OC": 257}, ("bias", "residual"), {"activation": "gelu"}),
    Case("linear_forward", {"N": 1511, "C": 131, "OC": 61}, transposed=True),
    Case("linear_backward", {"N": 1511, "C": 131, "OC": 257}, ("dbias", "preactivation"), {"activation": "gelu"}),
    Case("linear_backward", {"N": 1511, "C": 131, "OC": 61}, ("dresidual",), transposed=True),
    Case("linear_forward", {"N": 301, "C": 517, "OC": 1031}, ("bias", "residual"), {"activation": "gelu"}),
    Case("linear_backward", {"N": 301, "C": 517, "OC": 1031}, ("dbias", "dresidual")),
    Case("linear_backward", {"N": 301, "C": 517, "OC": 1031}, transposed=True),
    Case("gelu_forward", {"N": 1999, "C": 131}),
    Case("gelu_backward", {"N": 1999, "C": 131}),
    Case("relu_forward", {"N": 1999, "C": 131}),
    Case("relu_backward", {"N": 1999, "C": 131}),
    Case("attention_forward", _HEADS, options=_DROPOUT),
    Case("attention_backward", _HEADS, options=_DROPOUT),
    Case("attention_weights", _HEADS | {"R": 101}, options={"first": 50}),
    Case("decode_tokens", _SIZES | {"K": 2, "HS": 31},
         ("position_table", "ln_1_bias", "qkv_bias", "fc_bias"), _DECODING, spread=0.3),
    Case("decode_tokens", _SIZES | {"K": 1, "HS": 30},
         ("cosines", "sines", "ln_1_bias", "qkv_bias", "fc_bias"), _DECODING, spread=0.3),
    Case("sample_token", {"V": 1999}, options={"temperature": 3.0, "top_k": 0, "top_p": 1.0, "noise": 0.9}),
    Case("dropout_forward", {"N": 1999, "C": 131}, ("residual",), {"rate": 0.1, "key": 7}),
    Case("dropout_backward", {"N": 1999, "C": 131}, (), {"rate": 0.1, "key": 7}),
    Case("cross_entropy", {"N": 1999, "V": 131}, ("dlogits",)),
    Case("squared_norm", {"P": 1_000_003}),
    Case("adamw", {"P": 1_000_003}, options=_ADAMW),
    Case("muon", {"P": 200_000}, options=_MUON),
]

ALL = LARGE + [case for operation in OPERATIONS for case in cases(operation)[::4]]

# Sums of products outside of vector code, and tails: what a compiler is most tempted to round in one way or another.
# Few, because each is compiled anew.
COMPILED_ANEW = [
    index
    for index, case in enumerate(LARGE)
    if case.operation in ("layernorm_backward", "dropout_forward", "squared_norm")
]

DIGESTS = """
import hashlib, json, sys
import numba
from bevia_fast.agreement.comparison import make_arguments, run
from bevia_fast.kernels import get_backend
from test_threads import ALL

found, backend = {}, get_backend("numba")
threads, indices = json.loads(sys.argv[1])
for count in threads:
    numba.set_num_threads(count)
    for index in indices:
        for dtype in ("float32", "float64"):
            results = run(backend, ALL[index], make_arguments(ALL[index], dtype))
            for output, array in results.items():
                digest = hashlib.sha1(array.tobytes()).hexdigest()
                found.setdefault(f"{ALL[index]} {dtype} {output}", []).append(digest)
print(json.dumps(found))
"""


TRAINING = """
import hashlib, json, sys
import numba
import numpy as np
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.kernels import get_backend
from bevia_fast.training.step import Trainer

found = []
model = ModelConfig(ctx=37, dim=48, layers=2, heads=3, dropout=0.1, vocab_size=41)
config = TrainConfig(model=model, batch=5, steps=200)
tokens = np.random.default_rng(0).integers(0, 41, 5000, dtype=np.int32)
for count in json.loads(sys.argv[1]):
    numba.set_num_threads(count)
    trainer = Trainer(config, model, get_backend("numba"), tokens)
    for step in range(1, 201):
        trainer.update(step, trainer.backward(step))
    state = (trainer.weights, trainer.first, trainer.second)
    found.append(hashlib.sha1(b"".join(part.flat.tobytes() for part in state)).hexdigest())
print(json.dumps(found))
"""




def digests(threads: list[int], indices: list[int], **variables: str) -> dict[str, list[str]]:
    """The digest of every output of some of the cases, for each number of threads in turn, in a process of its own."""
    found: dict[str, list[str]] = in_a_process(
        DIGESTS, [threads, indices], NUMBA_NUM_THREADS=str(max(threads)), **variables
    )
    return found


@pytest.fixture(scope="module")
def with_four_threads() -> dict[str, list[str]]:
    return digests([4, 3, 2, 1], list(range(len(ALL))))


def assert_same(found: dict[str, list[str]], expected: dict[str, list[str]], cause: str) -> None:
    different = [name for name in found if set(found[name]) != set(expected[name])]
    assert not different, f"the bits depend on {cause}:\n" + "\n".join(different)


def test_numba_gives_the_same_bits_for_1_to_4_threads(with_four_threads: dict[str, list[str]]) -> None:
    first = {name: found[:1] for name, found in with_four_threads.items()}
    assert_same(with_four_threads, first, "the number of threads")


def test_training_with_dropout_gives_the_same_bits_for_1_to_4_threads() -> None:
    found = in_a_process(TRAINING, [1, 2, 3, 4], NUMBA_NUM_THREADS="4")
    assert len(set(found)) == 1, found


def test_numba_gives_the_same_bits_in_another_run(with_four_threads: dict[str, list[str]]) -> None:
    """A run that knows of two threads only, and so may lay out its work in another way."""
    assert_same(digests([2], list(range(len(ALL)))), with_four_threads, "the run")


def test_numba_gives_the_same_bits_when_compiled_anew(
    with_four_threads: dict[str, list[str]], tmp_path: Path
) -> None:
    """Machine code from the cache and machine code just made are optimized in different ways."""
    fresh = digests([2], COMPILED_ANEW, BEVIA_FAST_CACHE_DIR=str(tmp_path))
    assert_same(fresh, with_four_threads, "whether the code came from the cache")
    assert_same(digests([2], COMPILED_ANEW, BEVIA_FAST_CACHE_DIR=str(tmp_path)), fresh, "whether the cache is warm")


def moved(arguments: dict[str, Any], offset: int) -> dict[str, Any]:
    """The same arguments, each array `offset` elements behind the start of a cache line."""
    copies: dict[int, np.ndarray] = {}
    for array in arguments.values():
        if isinstance(array, np.ndarray):
            source = array if array.flags.c_contiguous else array.T
            buffer = aligned_empty(source.size + CACHE_LINE, source.dtype)[offset : offset + source.size]
            copy = buffer.reshape(source.shape)
            copy[...] = source
            copies[id(array)] = copy if source is array else copy.T
    return {name: copies.get(id(value), value) for name, value in arguments.items()}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_numba_gives_the_same_bits_wherever_the_arrays_lie(operation: str, dtype: str) -> None:
    backend = get_backend("numba")
    for case in [case for case in ALL if case.operation == operation]:
        expected = run(backend, case, moved(make_arguments(case, dtype), 0))
        for offset in (1, 3):
            for output, array in run(backend, case, moved(make_arguments(case, dtype), offset)).items():
                assert array.tobytes() == expected[output].tobytes(), f"{case}: {output} at offset {offset}"


TWO_THREADS = """
import hashlib, json, sys, threading
import numba
import numpy as np
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit._runtime import threads as kernel_threads
from bevia_fast.training.step import Trainer

model = ModelConfig(ctx=37, dim=48, layers=1, heads=3, vocab_size=41)
tokens = np.random.default_rng(0).integers(0, 41, 5000, dtype=np.int32)
found = {}

def train(seed):
    trainer = Trainer(TrainConfig(model=model, batch=5, steps=50, seed=seed), model, get_backend("numba"), tokens)
    for step in range(1, 51):
        trainer.update(step, trainer.backward(step))
    found[seed] = hashlib.sha1(trainer.weights.flat.tobytes()).hexdigest()

for seed in (1, 2):
    train(seed)
alone = dict(found)
found.clear()
threads = [threading.Thread(target=train, args=[seed]) for seed in (1, 2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([kernel_threads.layer(), found == alone]))
"""


@pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])
def test_two_models_can_be_trained_at_once_with_each_layer(layer: str) -> None:
    """Workqueue ends a process that starts two parallel loops; there, kernels wait for each other."""
    if not kernel_threads.loads(layer):
        pytest.skip(f"{layer} is not installed")
    assert in_a_process(TWO_THREADS, None, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2") == [layer, True]


@pytest.mark.parametrize("layer", ["tbb", "workqueue"])
def test_other_layers_give_the_same_bits(layer: str, with_four_threads: dict[str, list[str]]) -> None:
    if not kernel_threads.loads(layer):
        pytest.skip(f"{layer} is not installed")
    found = digests([2, 1], list(range(len(LARGE))), NUMBA_THREADING_LAYER=layer)
    assert_same(found, with_four_threads, f"the threading layer, here {layer}")


def test_no_parallel_loop_has_a_choice_in_its_range() -> None:
    """If it stands in the call of prange, Numba runs the loop on one thread, and says so only if there is no other."""
    loops = 0
    for path in Path(kernels.__path__[0], "numba_jit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.For) and "prange" in ast.unparse(node.iter):
                loops += 1
                choices = [part for part in ast.walk(node.iter) if isinstance(part, ast.IfExp | ast.BoolOp)]
                assert not choices, f"{path.name}, line {node.lineno}: {ast.unparse(node.iter)}"
    assert loops > 20
