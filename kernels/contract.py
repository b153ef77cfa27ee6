"""What every kernel promises: its signature, its formula, the shapes it takes, the errors it gives, what it costs.

Each operation stands here once, as a function without a body; `numpy_ref` and `numba_jit` each implement all of them
under `@implements(contract.<operation>)`, which gives both the same argument checks.

Letters:  B batch · T time (context) · C channels · NH heads · HS = C/NH head size · V vocabulary · N = B·T rows ·
          OC output channels · P parameters · R rows asked for · S slots of a key/value cache · L layers ·
          G groups of M hidden units · D tokens to draw

Order of arguments: outputs, then inputs, then what the forward pass saved; options are keywords.

Laws:
- Kernels write into arrays of the caller. Gradients of parameters (`dweight`, `dbias`, `d*_table`) are **added to**;
  every other output is overwritten.
- All floating arrays of a call have one dtype, float32 or float64, and are C-contiguous. A weight may also be
  F-contiguous, that is the `.T` of a C-contiguous array: so a tied output head shares the embedding's memory.
- An output may share memory with an input only where the operation says "in place".
- A wrong shape, dtype or layout, or an output that is read-only, is refused with a `ContractError` naming operation
  and argument; nothing is written.

Costs are the least that a call must do. What an operation does to an element counts: an addition, multiplication,
division, square root, comparison or maximum is one operation, one of exp, log and tanh is `FUNCTION` of them, about
what its polynomial takes. What is done once a row does not count, nor does dropout's integer arithmetic; of matrix
products, only the products count. Arrays count whole, once if they are read or written, twice if both.

Shape notation: `"B T 3*C"` floats · `"int32<V B T"` token ids below V · `?` may be None · `~` either memory order ·
                `!` an output
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .windows import places_of

Array = NDArray[Any]
Activation = Literal["relu", "gelu"]
Norm = Literal["pre", "post"]
P = ParamSpec("P")
R = TypeVar("R")
FUNCTION = 8  # operations that exp, log or tanh counts as
NORM_EPS = 1e-5  # of the layer normalisation


class ContractError(ValueError):
    """An argument of a kernel is not what the contract asks for."""


@dataclass(frozen=True)
class Cost:
    """The least that an operation must do: floating-point operations, and bytes moved between memory and the core."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Floating-point operations per byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class ArraySpec:
    """One array argument: `dims` are products of letters and numbers, such as `3*C`."""

    name: str
    dims: tuple[str, ...]
    optional: bool
    either_order: bool
    below: str | None  # token ids: the letter that bounds them; None for floats
    output: bool

    @classmethod
    def parse(cls, name: str, text: str) -> ArraySpec:
        match = re.fullmatch(r"(?:int32<(\w+) )?([\w* ]+?)(\??)(~?)(!?)", text)
        if match is None:
            raise ValueError(f"unreadable shape {text!r} of {name}")
        below, dims, optional, either, output = match.groups()
        return cls(name, tuple(dims.split()), bool(optional), bool(either), below, bool(output))

    def wanted(self) -> str:
        return "(" + ", ".join(self.dims) + ("," if len(self.dims) == 1 else "") + ")"

    def shape(self, letters: Mapping[str, int]) -> tuple[int, ...]:
        """The shape where the letters stand for these sizes."""
        sizes = []
        for dim in self.dims:
            size = 1
            for factor in dim.split("*"):
                size *= int(factor) if factor.isdigit() else letters[factor]
            sizes.append(size)
        return tuple(sizes)


@dataclass(frozen=True)
class Operation:
    """A kernel's entry in the contract."""

    name: str
    signature: inspect.Signature
    arrays: tuple[ArraySpec, ...]
    flops: Callable[[dict[str, int]], float]  # of the letters, the options, and 1 or 0 for arrays that may be None
    twice: frozenset[str]  # arrays both read and written
    gathered: frozenset[str]  # tables of which a row is taken for each token
    divides: tuple[str, str] | None  # (divisor, dividend)
    doc: str

    def dims(self, arguments: dict[str, Any]) -> dict[str, int]:
        """Check the arrays in `arguments` and return what each letter stands for. Raises ContractError."""
        letters: dict[str, int] = {}
        dtype: np.dtype[Any] | None = None
        for spec in self.arrays:
            array = arguments.get(spec.name)
            if array is None:
                if spec.optional:
                    continue
                raise ContractError(f"{self.name}: {spec.name} is missing; wanted an array {spec.wanted()}")
            if not isinstance(array, np.ndarray):
                raise ContractError(f"{self.name}: {spec.name} is a {type(array).__name__}; wanted a NumPy array")
            dtype = self._check_dtype(spec, array, dtype)
            self._check_layout(spec, array)
            self._bind(spec, array, letters)
        if self.divides is not None:
            divisor, dividend = (letters[letter] for letter in self.divides)
            if dividend % divisor:
                raise ContractError(f"{self.name}: {self.divides[1]} = {dividend} is not divisible by "
                                    f"{self.divides[0]} = {divisor}")  # fmt: skip
        return letters

    def check_outputs(self, arguments: dict[str, Any]) -> None:
        """Raises ContractError if one cannot be written."""
        for spec in self.arrays:
            if spec.output and arguments.get(spec.name) is not None and not arguments[spec.name].flags.writeable:
                raise ContractError(f"{self.name}: {spec.name} is read-only; wanted an array to write to")

    def _check_dtype(self, spec: ArraySpec, array: Array, dtype: np.dtype[Any] | None) -> np.dtype[Any] | None:
        if spec.below is not None:
            if array.dtype != np.int32:
                raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted int32")
            return dtype
        if array.dtype not in (np.float32, np.float64):
            raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted float32 or float64")
        if dtype is not None and array.dtype != dtype:
            raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted {dtype} as the others")
        return array.dtype

    def _check_layout(self, spec: ArraySpec, array: Array) -> None:
        if array.flags.c_contiguous or (spec.either_order and array.flags.f_contiguous):
            return
        raise ContractError(f"{self.name}: {spec.name} of shape {array.shape} is not contiguous; "
                            f"wanted C order{' or its transpose' if spec.either_order else ''}")  # fmt: skip

    def _bind(self, spec: ArraySpec, array: Array, letters: dict[str, int]) -> None:
        """Hold the array's shape against its spec; a letter met for the first time takes the size found."""
        known_letters = ", ".join(f"{letter} = {size}" for letter, size in letters.items())
        fits = array.ndim == len(spec.dims)
        if fits:
            for size, dim in zip(array.shape, spec.dims, strict=True):
                known, unknown = 1, None
                for factor in dim.split("*"):
                    if factor.isdigit():
                        known *= int(factor)
                    elif factor in letters:
                        known *= letters[factor]
                    else:
                        unknown = factor
                if unknown is not None and size % known == 0 and size > 0:
                    letters[unknown] = size // known
                elif unknown is not None or size != known:
                    fits = False
        if not fits:
            raise ContractError(f"{self.name}: {spec.name} has shape {array.shape}; wanted {spec.wanted()}"
                                f"{' with ' + known_letters if known_letters else ''}")  # fmt: skip

    def cost(self, **arguments: Any) -> Cost:
        """What a call with these arguments must do at least."""
        given = [spec.name for spec in self.arrays if spec.optional and arguments.get(spec.name) is not None]
        dtype = next(arguments[spec.name].dtype for spec in self.arrays if not spec.below)
        return self.cost_of(self.dims(arguments), given, dtype, arguments)

    def cost_of(
        self, letters: Mapping[str, int], given: Collection[str], dtype: DTypeLike, options: Mapping[str, Any]
    ) -> Cost:
        """The same from sizes alone. `given`: the arrays that may be None and are not; `options`: the numbers among
        the arguments.

        Of a table from which rows are taken, no more rows cross memory than there are, or than are asked for.
        """
        itemsize, nbytes = np.dtype(dtype).itemsize, 0
        for spec in self.arrays:
            if spec.optional and spec.name not in given:
                continue
            shape = spec.shape(letters)
            if spec.name in self.gathered:
                shape = (min(shape[0], letters["B"] * letters["T"]), *shape[1:])
            size = math.prod(shape) * (4 if spec.below else itemsize)
            nbytes += size * (2 if spec.name in self.twice else 1)
        numbers = {name: value for name, value in options.items() if isinstance(value, int)}
        present = {spec.name: int(spec.name in given) for spec in self.arrays if spec.optional}
        return Cost(float(self.flops({**numbers, **present, **letters})), float(nbytes))


OPERATIONS: dict[str, Operation] = {}


def operation(
    flops: Callable[[dict[str, int]], float],
    *,
    twice: tuple[str, ...] = (),
    gathered: tuple[str, ...] = (),
    divides: tuple[str, str] | None = None,
    **arrays: str,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Enter a function into the contract; `arrays` gives the shape of each array argument."""

    def enter(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__
        specs = tuple(ArraySpec.parse(key, text) for key, text in arrays.items())
        doc = inspect.getdoc(function) or ""
        OPERATIONS[name] = Operation(
            name, inspect.signature(function), specs, flops, frozenset(twice), frozenset(gathered), divides, doc
        )
        return function

    return enter


def implements(contract_function: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Mark a backend's implementation of an operation: adds the contract's checks in front of it.

    The check of one combination of shapes, strides and dtypes is done once and remembered, for a training step makes
    the same calls thousands of times; token ids are looked at in every call, for an id out of range would have the
    compiled path read memory that is not its own.
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
                entry.check_outputs(bound.arguments)
                if len(seen) >= 4096:  # many shapes, as in a test: forget rather than grow
                    seen.clear()
                seen[key] = letters
            for name, position, below in ids:
                tokens: Any = args[position] if position < len(args) else kwargs[name]
                check_ids(entry.name, name, tokens, letters[below])
            return function(*args, **kwargs)

        setattr(checked, UNCHECKED, function)
        return checked

    return decorate


UNCHECKED = "unchecked"  # the name of an operation's attribute: the function behind the checks


def _fingerprint(arguments: Iterable[Any]) -> list[Any]:
    """What the check of the arguments depends on, one after the other: every call of a kernel waits for this."""
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
    activation, norm = arguments.get("activation"), arguments.get("norm", "pre")
    if norm not in ("pre", "post"):
        raise ContractError(f"{operation_name}: norm is {norm!r}; wanted 'pre' or 'post'")
    if activation is None and operation_name != "decode_tokens":
        return
    if activation not in ("relu", "gelu"):
        raise ContractError(f"{operation_name}: activation is {activation!r}; wanted None, 'relu' or 'gelu'")
    if operation_name == "linear_backward" and arguments.get("preactivation") is None:
        raise ContractError("linear_backward: activation is given but preactivation is missing")


def check_ids(operation_name: str, argument: str, tokens: Array, below: int) -> None:
    """Raises ContractError if an id is not in [0, below)."""
    if int(tokens.view(np.uint32).max()) >= below:  # where negative ones are the largest
        where = tuple(int(i) for i in np.argwhere((tokens < 0) | (tokens >= below))[0])
        raise ContractError(f"{operation_name}: {argument}{list(where)} is {tokens[where]}; wanted 0 <= id < {below}")


def check_decoding(V: int, token: int, index: int) -> None:
    """Raises ContractError if the first token of `decode_tokens` is not in the vocabulary, or its number negative."""
    if not 0 <= token < V:
        raise ContractError(f"decode_tokens: token is {token}; wanted 0 <= token < {V}")
    if index < 0:
        raise ContractError(f"decode_tokens: index is {index}; wanted index >= 0")


def check_rows(T: int, R: int, first: int) -> None:
    """Raises ContractError if the rows that `attention_weights` is asked for are not in [0, T)."""
    if not 0 <= first <= T - R:
        raise ContractError(f"attention_weights: first is {first}; wanted 0 <= first <= T - R = {T - R}")


# --------------------------------------------------------------------------------------------------------------------
# The operations
# --------------------------------------------------------------------------------------------------------------------


@operation(
    lambda d: d["B"] * d["T"] * d["C"],
    gathered=("token_table",),
    out="B T C!", tokens="int32<V B T", token_table="V C", position_table="T C",
)  # fmt: skip
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array) -> None:
    """out[b,t] = token_table[tokens[b,t]] + position_table[t]"""


@operation(
    lambda d: 2 * d["B"] * d["T"] * d["C"],
    twice=("dtoken_table", "dposition_table"),
    gathered=("dtoken_table",),
    dtoken_table="V C!", dposition_table="T C!", dout="B T C", tokens="int32<V B T",
)  # fmt: skip
def embedding_backward(dtoken_table: Array, dposition_table: Array, dout: Array, tokens: Array) -> None:
    """dtoken_table[v] += sum of dout[b,t] over all (b,t) with tokens[b,t] = v;  dposition_table[t] += sum_b dout[b,t]

    The order of the sums does not depend on the number of threads.
    """


@operation(
    lambda d: (6 + d["bias"]) * d["N"] * d["C"],
    out="N C!", mean="N!", rstd="N!", inp="N C", weight="C", bias="C?",
)  # fmt: skip
def layernorm_forward(
    out: Array, mean: Array, rstd: Array, inp: Array, weight: Array, bias: Array | None, *, eps: float = NORM_EPS
) -> None:
    """out = (inp - mean) * rstd * weight + bias,  a row at a time (Ba et al. 2016, eq. 4)

    mean = sum_c inp / C;  rstd = 1 / sqrt(sum_c (inp - mean)^2 / C + eps); both are saved for the backward pass.
    """


@operation(
    lambda d: (12 + d["dbias"] + d["dresidual"]) * d["N"] * d["C"],
    twice=("dweight", "dbias"),
    dinp="N C!", dweight="C!", dbias="C?!", dout="N C", inp="N C", weight="C", mean="N", rstd="N", dresidual="N C?",
)  # fmt: skip
def layernorm_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array, mean: Array, rstd: Array,
    *, dresidual: Array | None = None,
) -> None:  # fmt: skip
    """With norm = (inp - mean) * rstd and dnorm = dout * weight, a row at a time:

    dinp = (dnorm - mean_c(dnorm) - norm * mean_c(dnorm * norm)) * rstd  + dresidual
    dweight += sum_n dout * norm;  dbias += sum_n dout

    In place: dinp may be dout or dresidual.
    """


@operation(
    lambda d: 2 * d["N"] * d["C"] * d["OC"],
    out="N OC!", inp="N C", weight="C OC~", bias="OC?", preactivation="N OC?!", residual="N OC?",
)  # fmt: skip
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    """out = activation(inp @ weight + bias) + residual;  preactivation = inp @ weight + bias, kept if asked for

    In place: out may be residual.
    """


@operation(
    lambda d: 4 * d["N"] * d["C"] * d["OC"],
    twice=("dweight", "dbias"),
    dinp="N C!", dweight="C OC~!", dbias="OC?!", dout="N OC", inp="N C", weight="C OC~", preactivation="N C?",
    dresidual="N C?",
)  # fmt: skip
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
) -> None:  # fmt: skip
    """dinp = dout @ weight^T + dresidual;  dweight += inp^T @ dout;  dbias += sum_n dout

    With `activation`, inp = activation(preactivation) is taken to be the output of the layer before, and dinp is the
    gradient of that layer's preactivation, as `relu_backward` and `gelu_backward` have it:
    dinp = (dout @ weight^T) * activation'(preactivation) + dresidual.

    In place: dinp may be dresidual.
    """


@operation(lambda d: d["N"] * d["C"], out="N C!", inp="N C")
def relu_forward(out: Array, inp: Array) -> None:
    """out = max(inp, 0);  NaN stays NaN.  In place: out may be inp."""


@operation(lambda d: d["N"] * d["C"], dinp="N C!", dout="N C", inp="N C")
def relu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    """dinp = dout where inp > 0, else 0.  In place: dinp may be dout."""


@operation(lambda d: (8 + FUNCTION) * d["N"] * d["C"], out="N C!", inp="N C")
def gelu_forward(out: Array, inp: Array) -> None:
    """out = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))),  x = inp  (Hendrycks & Gimpel 2016, the form of GPT-2)

    In place: out may be inp.
    """


@operation(lambda d: (18 + FUNCTION) * d["N"] * d["C"], dinp="N C!", dout="N C", inp="N C")
def gelu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    """dinp = dout * d/dx [ x/2 (1 + tanh(u)) ],  u = sqrt(2/pi) (x + 0.044715 x^3),  x = inp

    In place: dinp may be dout.
    """


@operation(
    lambda d: 2 * d["B"] * d["T"] * (d["T"] + 1) * d["C"],  # two products over the causal half
    divides=("NH", "C"),
    out="B T C!", lse="B NH T!", qkv="B T 3*C",
)  # fmt: skip
def attention_forward(
    out: Array, lse: Array, qkv: Array, *, dropout_rate: float = 0.0, dropout_key: int = 0
) -> None:
    """Causal multi-head self-attention straight from the projection (Vaswani et al. 2017, eq. 1).

    qkv[b,t] holds q, k, v one after the other, each NH heads of HS channels. For each batch and head, for j <= i:
        scores[i,j] = q[i] . k[j] / sqrt(HS);   weights = softmax_j(scores);   out[i] = sum_j weights[i,j] v[j]
        lse[i] = log sum_j exp(scores[i,j]), all that the backward pass needs to have the weights again
    Dropout sets weights to 0 with probability `dropout_rate` and scales the others by 1/(1 - rate); the mask of row
    (b*NH + h)*T + i and column j comes from `dropout_key`.
    """


@operation(
    lambda d: 5 * d["B"] * d["T"] * (d["T"] + 1) * d["C"],  # five products: scores, dweights, dq, dk, dv
    divides=("NH", "C"),
    dqkv="B T 3*C!", dout="B T C", qkv="B T 3*C", out="B T C", lse="B NH T",
)  # fmt: skip
def attention_backward(
    dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array, *, dropout_rate: float = 0.0, dropout_key: int = 0
) -> None:
    """The gradient of `attention_forward`, with the weights recomputed from qkv and lse (Dao et al. 2022, alg. 4).

    weights = exp(scores - lse);   dv[j] = sum_i weights[i,j] dout[i];   dweights[i,j] = dout[i] . v[j]
    dscores = weights * (dweights - rowsum(weights * dweights)), the sum being dout[i] . out[i]
    dq[i] = sum_j dscores[i,j] k[j] / sqrt(HS);   dk[j] = sum_i dscores[i,j] q[i] / sqrt(HS)
    """


@operation(
    lambda d: d["B"] * d["R"] * (2 * d.get("first", 0) + d["R"] + 1) * d["C"],  # row r looks at first + r + 1 keys
    divides=("NH", "C"),
    weights="B NH R T!", qkv="B T 3*C",
)  # fmt: skip
def attention_weights(weights: Array, qkv: Array, first: int = 0) -> None:
    """The attention weights of query rows first .. first + R - 1, for looking at: weights[b,h,r] = softmax_j(scores)
    of query first + r, 0 for j > first + r. `attention_forward` never holds them whole.

    Raises ContractError if the rows asked for are not in [0, T).
    """


def _decoding(d: dict[str, int]) -> float:
    """Multiply-adds of `decode_tokens`, twice: each weight for each place of each token, each pair of places that see
    each other, and the head."""
    weights = d["L"] * d["C"] * (4 * d["NH"] * d["HS"] + 2 * d["G"] * d["M"])
    total = 0
    for index in range(d["index"], d["index"] + d["D"]):
        places = [place for _, place in places_of(index, d["S"])]
        total += len(places) * weights + 2 * d["L"] * d["NH"] * d["HS"] * sum(place + 1 for place in places)
    return 2 * (total + d["D"] * d["C"] * d["V"])


@operation(
    _decoding,
    drawn="int32<V D!", logits="V!", keys="2 L NH S HS!", values="2 L NH S HS!",
    token_table="V C", position_table="S C",
    ln_1_weight="L C", ln_1_bias="L C?", qkv_weight="L NH C 3*HS", qkv_bias="L NH 3*HS?",
    attn_proj_weight="L NH HS C", attn_proj_bias="L C?",
    ln_2_weight="L C", ln_2_bias="L C?", fc_weight="L G C M", fc_bias="L G M?",
    mlp_proj_weight="L G M C", mlp_proj_bias="L C?",
    ln_f_weight="C", ln_f_bias="C?", head="V C",
)  # fmt: skip
def decode_tokens(
    drawn: Array, logits: Array, keys: Array, values: Array, token: int, index: int,
    token_table: Array, position_table: Array,
    ln_1_weight: Array, ln_1_bias: Array | None, qkv_weight: Array, qkv_bias: Array | None,
    attn_proj_weight: Array, attn_proj_bias: Array | None,
    ln_2_weight: Array, ln_2_bias: Array | None, fc_weight: Array, fc_bias: Array | None,
    mlp_proj_weight: Array, mlp_proj_bias: Array | None,
    ln_f_weight: Array, ln_f_bias: Array | None, head: Array,
    *, norm: Norm, activation: Activation, temperature: float, top_k: int, top_p: float, key: int, draw: int,
) -> int:  # fmt: skip
    """Generation: read token number `index` of a text, draw the next one, read that, ..., until D are drawn.

    A token goes through the whole transformer, one row of activations. The weights lie as a head, or a group of hidden
    units, needs them: each adds its share to the stream.
        x += sum_h attend_h(ln_1(x) qkv_weight[h] + qkv_bias[h]) attn_proj_weight[h] + attn_proj_bias
        x += sum_g activation(ln_2(x) fc_weight[g] + fc_bias[g]) mlp_proj_weight[g] + mlp_proj_bias
    with "pre" norm; with "post" norm x = ln_1(x + ...), x = ln_2(x + ...). Then logits = ln_f(x) head^T, and a token is
    drawn from them as `sample_token` does, with random number `draw` of stream `key`, `draw` + 1, ....

    A key and a value are written for each layer, head and place of the token in a window of S places, see
    `kernels.windows`: window k has cache k mod 2. What these tokens look at must be there from before. `logits` are
    those that the last token was drawn from.

    Returns how many tokens were drawn: less than D where the logits of the next one are not finite.
    Raises ContractError if token is not in [0, V) or index < 0.
    """
    raise NotImplementedError


@operation(lambda d: (5 + FUNCTION) * d["V"], logits="V")
def sample_token(logits: Array, *, temperature: float, top_k: int, top_p: float, noise: float) -> int:
    """One token, drawn by `noise`, uniform in [0, 1): inverse transform sampling, likeliest token first, the first of
    equal ones. All in float64:

    weight[v] = exp((logits[v] - max logits) / temperature) of the `top_k` likeliest, or of all if top_k = 0; else 0
    total = sum of weights, in the order of v;  running[i] = sum of the i + 1 largest weights, largest first
    top_p < 1: total = the first of running that is at least top_p * total (Holtzman et al. 2020)
    The token drawn is the first in that order with running > noise * total; the last that is left if rounding leaves
    none. Temperature 0 takes the largest logit.

    Returns -1 where a logit is not finite.
    """
    raise NotImplementedError


@operation(lambda d: (2 + d["residual"]) * d["N"] * d["C"], out="N C!", inp="N C", residual="N C?")
def dropout_forward(out: Array, inp: Array, rate: float, key: int, *, residual: Array | None = None) -> None:
    """out = inp * mask / (1 - rate) + residual;  mask[n,c] is 0 with probability `rate`, else 1 (Srivastava et al.)

    The mask is a pure function of (key, n, c); see `numpy_ref.dropout.dropout_mask`.
    In place: out may be inp or residual.
    """


@operation(lambda d: 2 * d["N"] * d["C"], dinp="N C!", dout="N C")
def dropout_backward(dinp: Array, dout: Array, rate: float, key: int) -> None:
    """dinp = dout * mask / (1 - rate), with the mask of the forward pass.  In place: dinp may be dout."""


@operation(
    lambda d: (3 + FUNCTION + 2 * d["dlogits"]) * d["N"] * d["V"],
    losses="N!", dlogits="N V?!", logits="N V", targets="int32<V N",
)  # fmt: skip
def cross_entropy(
    losses: Array, dlogits: Array | None, logits: Array, targets: Array, *, scale: float = 1.0
) -> None:
    """Softmax, cross-entropy and its gradient in one pass over the logits.

    losses[n] = log sum_v exp(logits[n,v]) - logits[n,targets[n]], in nats
    dlogits = (softmax(logits) - onehot(targets)) * scale;  None: losses only.  In place: dlogits may be logits.
    """


@operation(lambda d: 2 * d["P"], gradients="P")
def squared_norm(gradients: Array) -> float:
    """The sum of squares of all elements, folded in float64 in an order fixed by the length alone."""
    raise NotImplementedError


@operation(
    lambda d: 15 * d["P"] + 2 * d["decayed"],
    twice=("parameters", "gradients", "first_moment", "second_moment"),
    parameters="P!", gradients="P!", first_moment="P!", second_moment="P!",
)  # fmt: skip
def adamw(
    parameters: Array, gradients: Array, first_moment: Array, second_moment: Array,
    *, step: int, decayed: int, learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    """One step of Adam with decoupled weight decay (Loshchilov & Hutter 2019, alg. 2), in one pass, in place.

    g = gradients * gradient_scale (gradient clipping);   gradients = 0, ready for the next step
    m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;   step counts from 1
    w = w - learning_rate * ( m/(1 - beta1^step) / (sqrt(v/(1 - beta2^step)) + eps) + weight_decay * w )
    Only the first `decayed` parameters, the matrices, are decayed.
    """


class Backend:
    """What the model is handed: all operations of the contract. A package of kernels is one; see `get_backend`.

    It may have functions more, with which passes are played from a `tape.Tape`: `launches`, a context in which the
    functions that its operations call are noted; `conditions`, what must be as it was if they are to be called again;
    and `play`, in the place of the tape's. A backend that stands before another, to see or change what its operations
    do, must not hand on its `launches`, or else have a `play` that does the same.
    """

    name: str

    embedding_forward = staticmethod(embedding_forward)
    embedding_backward = staticmethod(embedding_backward)
    layernorm_forward = staticmethod(layernorm_forward)
    layernorm_backward = staticmethod(layernorm_backward)
    linear_forward = staticmethod(linear_forward)
    linear_backward = staticmethod(linear_backward)
    relu_forward = staticmethod(relu_forward)
    relu_backward = staticmethod(relu_backward)
    gelu_forward = staticmethod(gelu_forward)
    gelu_backward = staticmethod(gelu_backward)
    attention_forward = staticmethod(attention_forward)
    attention_backward = staticmethod(attention_backward)
    attention_weights = staticmethod(attention_weights)
    decode_tokens = staticmethod(decode_tokens)
    sample_token = staticmethod(sample_token)
    dropout_forward = staticmethod(dropout_forward)
    dropout_backward = staticmethod(dropout_backward)
    cross_entropy = staticmethod(cross_entropy)
    squared_norm = staticmethod(squared_norm)
    adamw = staticmethod(adamw)
