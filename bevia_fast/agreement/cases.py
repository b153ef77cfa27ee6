"""Test calls for every kernel, at difficult sizes.

The sizes are ones, primes, and neighbors of multiples of the vector and tile widths. Each is combined with some of the
operation's options: with and without biases, residuals, activations and dropout, transposed weights, results in place.
Each lies on one side of every threshold by which the Numba kernels choose how to compute; `tests/kernels/thresholds.py`
lists them, with a test that some case lies on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..kernels.contract import MatrixAt
from .comparison import Case

DROPOUT_KEY = 0x9D3F_0C51_7E2A_B846  # above 2^63, as half of all keys are

# rows x channels, for operations on rows
_ROWS = [
    {"N": N, "C": C}
    for N, C in [
        (1, 1), (1, 7), (5, 1), (3, 2), (7, 3), (2, 8), (13, 15), (31, 16), (17, 17), (9, 31), (33, 33), (5, 47),
        (2, 64), (63, 65), (130, 48), (257, 97), (3, 383), (65, 384), (11, 385), (1, 1023),
    ]
]  # fmt: skip

# long rows, and so many sums over rows that threads share them
_LAYERNORM_BEYOND = [{"N": 6, "C": 512}, {"N": 6, "C": 513}, {"N": 33, "C": 16_389}]

_LINEAR = [
    {"N": N, "C": C, "OC": OC}
    for N, C, OC in [
        (1, 1, 1), (1, 1, 5), (3, 1, 7), (2, 3, 1), (7, 5, 3), (1, 64, 65), (13, 17, 19), (15, 16, 17), (16, 32, 48),
        (31, 33, 32), (64, 63, 65), (97, 48, 47), (95, 96, 97), (33, 385, 383), (257, 64, 96), (130, 31, 384),
        (384, 65, 49), (2, 1023, 3), (6, 384, 16), (12, 7, 192), (1025, 5, 33), (97, 160, 257), (9, 517, 1031),
    ]
]  # fmt: skip

# sums and weights that are cut into pieces, and a weight too large for the caches
_LINEAR_BEYOND = [
    {"N": N, "C": C, "OC": OC}
    for N, C, OC in [(600, 5, 300), (300, 3, 800), (70, 400, 401), (200, 3, 1500), (513, 725, 725)]
]

_LINEAR_FORWARD_VARIANTS: list[dict[str, Any]] = [
    {},
    {"given": ("bias",), "transposed": True},
    {"given": ("bias", "preactivation"), "options": {"activation": "gelu"}},
    {"given": ("bias", "residual")},
    {"given": ("preactivation", "residual"), "options": {"activation": "relu"}, "transposed": True},
    {"given": ("bias", "residual"), "in_place": ("out", "residual")},
    {"given": ("bias",), "options": {"activation": "gelu"}},
    {"given": ("bias", "preactivation", "residual"), "options": {"activation": "gelu"}},
    {"given": ("preactivation",)},
    {"given": ("bias", "residual"), "options": {"activation": "gelu"}, "in_place": ("out", "residual")},
    {"given": ("preactivation", "residual"), "options": {"activation": "relu"}, "in_place": ("out", "residual")},
    {"given": ("preactivation", "residual"), "in_place": ("out", "residual")},
    {"given": ("bias", "preactivation"), "options": {"activation": "gelu_erf"}},
    {"given": ("preactivation", "residual"), "options": {"activation": "gelu_erf"}, "transposed": True},
]

_LINEAR_BACKWARD_VARIANTS: list[dict[str, Any]] = [
    {},
    {"given": ("dbias",), "transposed": True},
    {"given": ("dbias", "preactivation"), "options": {"activation": "gelu"}},
    {"given": ("dbias", "dresidual")},
    {"given": ("preactivation", "dresidual"), "options": {"activation": "relu"}, "transposed": True},
    {"given": ("dbias", "dresidual"), "in_place": ("dinp", "dresidual")},
    {"given": ("preactivation",), "options": {"activation": "relu"}},
    {"given": ("dbias", "preactivation", "dresidual"), "options": {"activation": "gelu"}},
    {"given": ("dbias", "preactivation"), "options": {"activation": "gelu_erf"}},
    {"given": ("preactivation", "dresidual"), "options": {"activation": "gelu_erf"}, "transposed": True},
]

_ATTENTION = [
    {"B": B, "T": T, "NH": NH, "HS": HS, "C": NH * HS}
    for B, T, NH, HS in [
        (1, 1, 1, 1), (2, 1, 3, 5), (1, 2, 1, 16), (3, 5, 2, 7), (1, 13, 3, 8), (2, 15, 1, 32), (1, 16, 2, 31),
        (2, 17, 2, 33), (1, 31, 4, 16), (1, 33, 1, 48), (1, 63, 2, 64), (1, 65, 1, 65), (2, 64, 2, 24), (1, 96, 3, 1),
        (1, 97, 1, 96), (1, 130, 2, 20), (1, 257, 1, 32), (5, 3, 7, 2),
    ]
]  # fmt: skip

# several blocks of keys, in one part or dealt out to several
_ATTENTION_BEYOND = [
    {"B": B, "T": T, "NH": NH, "HS": HS, "C": NH * HS}
    for B, T, NH, HS in [(1, 385, 1, 8), (3, 200, 3, 4), (2, 450, 2, 5), (1, 800, 1, 16)]
]

# places among both, and a window: of one key, within a block of queries, as long as one, within and across blocks of
# keys, of which the first begins within a panel or at its beginning; and longer than the context
_WINDOWS = [
    (3, 1), (4, 6), (7, 3), (9, 64), (11, 33), (14, 48), (15, 17), (16, 47), (16, 49), (16, 256), (16, 1000),
    (18, 1), (18, 384), (19, 7), (20, 96), (20, 191), (21, 193), (21, 350), (21, 400), (21, 799),
]  # fmt: skip

_DROPOUT_RATES = (0.0, 0.1, 0.5)


def _each_with_some(
    operation: str, sizes: list[dict[str, int]], variants: list[dict[str, Any]],
    beyond: Sequence[dict[str, int]] = (),
) -> list[Case]:  # fmt: skip
    """Return every size with two of the variants in turn, and every variant with a small and a large one of `sizes`.

    `beyond`: sizes beyond some threshold, each too large to be combined with every variant.
    """
    found = {}
    for i, dims in enumerate([*sizes, *beyond]):
        for variant in (variants[i % len(variants)], variants[(3 * i + 1) % len(variants)]):
            case = Case(operation, dims, **variant)
            found[str(case)] = case
    for variant in variants:
        for dims in (sizes[4], sizes[-5]):
            case = Case(operation, dims, **variant)
            found[str(case)] = case
    return list(found.values())


def _attention_cases(operation: str) -> list[Case]:
    variants = [{"options": {"dropout_rate": r, "dropout_key": DROPOUT_KEY}} for r in _DROPOUT_RATES]
    found = _each_with_some(operation, _ATTENTION, variants, _ATTENTION_BEYOND)
    for number, (size, window) in enumerate(_WINDOWS):
        dims = [*_ATTENTION, *_ATTENTION_BEYOND][size]
        dropout = {"dropout_rate": 0.1, "dropout_key": DROPOUT_KEY} if number % 3 == 0 else {}
        found.append(Case(operation, dims, options={"window": window, **dropout}))
    return found


def _weights_cases() -> list[Case]:
    sizes = [(1, 1, 1, 1, 1, 0), (2, 3, 5, 7, 7, 0), (1, 2, 16, 33, 1, 32), (1, 1, 17, 65, 5, 11),
             (2, 2, 32, 130, 3, 64), (1, 4, 8, 17, 16, 1)]  # fmt: skip
    return [
        Case("attention_weights", {"B": B, "NH": NH, "C": NH * HS, "HS": HS, "T": T, "R": R}, options=options)
        for B, NH, HS, T, R, first in sizes
        for options in ({"first": first}, {"first": first, "window": first // 2 + 1})
    ]


def _decoding_cases() -> list[Case]:
    """Return cases before the context is full, while the next window fills up, and where it takes over; with rotary
    positions before the ring is full, where it becomes so, and long after."""
    sizes = [(1, 1, 1, 1, 1, 1, 1, 1, 1, 0), (2, 2, 1, 2, 2, 3, 1, 2, 5, 0), (7, 5, 2, 2, 5, 3, 2, 5, 11, 3),
             (9, 65, 1, 3, 8, 17, 3, 33, 51, 100), (3, 17, 2, 1, 33, 64, 2, 128, 64, 31),
             (40, 31, 3, 4, 16, 16, 2, 128, 64, 7),
             (5, 300, 1, 2, 130, 31, 1, 31, 20, 140), (20, 13, 2, 3, 4, 8, 3, 32, 24, 1_000_000),
             (12, 33, 1, 2, 7, 176, 2, 100, 200, 2)]  # fmt: skip
    biases = ("ln_1_bias", "qkv_bias", "attn_proj_bias", "ln_2_bias", "fc_bias", "mlp_proj_bias", "ln_f_bias")
    usual = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "key": (1 << 63) + 5, "draw": 3}
    variants: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (biases, {"norm": "pre", "activation": "gelu"}),
        (biases, {"norm": "post", "activation": "relu", "top_k": 3}),
        ((), {"norm": "pre", "activation": "relu", "top_p": 0.7}),
        (biases[1:3], {"norm": "post", "activation": "gelu", "temperature": 0.0}),
    ]
    exact = {"norm": "pre", "activation": "gelu_erf"}
    found = []
    for i, (D, V, L, NH, S, HS, G, M, C, index) in enumerate(sizes):
        dims = {"D": D, "V": V, "L": L, "NH": NH, "S": S, "HS": HS, "G": G, "M": M, "C": C, "H": max(1, HS // 2)}
        for given, options in (variants[i % 4], variants[(i + 1) % 4]):
            call = {"token": V // 2, "index": index, **usual, **options}
            found.append(Case("decode_tokens", dims | {"K": 2}, ("position_table", *given), call, spread=0.3))
            windows = tuple((layer * 3 + i) % S for layer in range(L))  # 0, where the layer has none, among them
            found.append(replace(found[-1], options=call | {"windows": windows}))
        if HS % 2 == 0:
            given, options = variants[(i + 2) % 4]
            call = {"token": V // 2, "index": index, **usual, **options}
            found.append(Case("decode_tokens", dims | {"K": 1}, ("cosines", "sines", *given), call, spread=0.3))
            windows = tuple((layer * 2 + i) % S for layer in range(L))
            found.append(replace(found[-1], options=call | {"windows": windows}))
        if i in (2, 5):
            found.append(replace(found[-1], options={**found[-1].options, "residual": False}))
            found.append(replace(found[-1], options={**found[-1].options, **exact}))
    return found


def _sampling_cases() -> list[Case]:
    sizes = [(1, 1.0, 0, 1.0, 0.5), (2, 1.0, 0, 1.0, 0.999), (65, 0.0, 0, 1.0, 0.3), (65, 0.8, 0, 1.0, 0.7),
             (65, 0.8, 5, 1.0, 0.7), (65, 2.0, 0, 0.9, 0.99), (300, 5.0, 100, 0.5, 0.6), (1025, 100.0, 0, 1.0, 0.99),
             (50_257, 1.0, 40, 0.9, 0.5)]  # fmt: skip
    found = []
    for V, temperature, top_k, top_p, noise in sizes:
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "noise": noise}
        found += [Case("sample_token", {"V": V}, options=options, spread=spread) for spread in (1.0, 1e-12, 10.0)]
    return found


def _cross_entropy_cases() -> list[Case]:
    sizes = [{"N": N, "V": V} for N, V in [(1, 1), (5, 1), (1, 2), (7, 3), (13, 17), (33, 65), (64, 96), (3, 383),
                                           (257, 65), (2, 1025), (130, 31)]]  # fmt: skip
    variants: list[dict[str, Any]] = [
        {"given": ("dlogits",)},
        {},
        {"given": ("dlogits",), "options": {"scale": 1 / 130}, "in_place": ("dlogits", "logits")},
        {"given": ("dlogits",), "options": {"scale": 0.25}, "spread": 30.0},
    ]
    return _each_with_some("cross_entropy", sizes, variants)


def _embedding_cases(operation: str) -> list[Case]:
    sizes = [(1, 1, 1, 1), (1, 1, 11, 7), (3, 5, 1, 16), (2, 7, 13, 17), (4, 33, 65, 48), (2, 130, 5, 65),
             (1, 257, 97, 31), (13, 3, 300, 384), (3, 11, 1031, 257)]  # fmt: skip
    positions = "position_table" if operation == "embedding_forward" else "dposition_table"
    all_sizes = [{"B": B, "T": T, "V": V, "C": C} for B, T, V, C in sizes]
    return [Case(operation, dims, given) for given in ((positions,), ()) for dims in all_sizes[:: 1 if given else 2]]


def _rotary_cases(operation: str) -> list[Case]:
    sizes = [(1, 1, 1, 1), (2, 1, 3, 5), (1, 7, 2, 8), (3, 5, 1, 15), (2, 33, 4, 16), (1, 65, 3, 17), (3, 64, 2, 32),
             (2, 130, 1, 33)]  # fmt: skip
    return [Case(operation, {"B": B, "T": T, "NH": NH, "H": H}) for B, T, NH, H in sizes]


def _adamw_cases() -> list[Case]:
    usual = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    sizes = [(1, 1, 1), (1, 0, 2), (7, 3, 1), (17, 17, 10), (1000, 0, 3), (1023, 512, 1), (5003, 2501, 1000),
             (70_001, 65_537, 7)]  # fmt: skip
    return [
        Case("adamw", {"P": P}, options=usual | {"step": step, "decayed": decayed, "learning_rate": 3e-3,
                                                 "weight_decay": 0.1, "gradient_scale": 0.37 if P % 2 else 1.0})
        for P, decayed, step in sizes
    ]  # fmt: skip


def _muon_cases() -> list[Case]:
    """Return cases with matrices of all shapes, with gaps between them, and with rows apart as those of q, k and v."""
    shapes = [
        [(1, 1, 1)], [(1, 7, 7)], [(7, 1, 1)], [(3, 5, 8)], [(5, 3, 3), (2, 2, 9)], [(16, 16, 48), (17, 16, 16)],
        [(31, 33, 33)], [(33, 31, 70), (15, 49, 49)], [(64, 64, 192), (64, 256, 256), (256, 64, 64)], [(65, 47, 47)],
        [(97, 113, 113)], [(130, 129, 129)], [(20, 300, 300)], [(300, 20, 60), (12, 12, 12)],
    ]  # fmt: skip
    found = []
    for number, each in enumerate(shapes):
        matrices, at = list[MatrixAt](), 3
        for rows, columns, stride in each:
            matrices += [MatrixAt(at + j, rows, columns, stride) for j in range(0, stride - columns + 1, columns)]
            at += rows * stride + 5
        # updates larger than the parameters, so that an error of an update is large compared with the result
        options = {"matrices": tuple(matrices), "learning_rate": 1.0, "beta": 0.95, "weight_decay": 0.5,
                   "gradient_scale": 0.37 if number % 2 else 1.0}  # fmt: skip
        found.append(Case("muon", {"P": at}, options=options, spread=0.02))
    return found


def cases(operation: str) -> list[Case]:
    """Return the cases of one operation of the contract. Raises ValueError for an unknown name."""
    variants: list[dict[str, Any]]
    if operation.startswith("embedding"):
        return _embedding_cases(operation)
    if operation == "layernorm_forward":
        variants = [{"given": ("bias",)}, {}, {"given": ("bias",), "spread": 10.0}]
        return _each_with_some(operation, _ROWS, variants, _LAYERNORM_BEYOND)
    if operation == "layernorm_backward":
        return _each_with_some(
            operation,
            _ROWS,
            [
                {"given": ("dbias",)},
                {"given": ("dbias", "dresidual")},
                {"given": ("dbias", "dresidual"), "in_place": ("dinp", "dresidual")},
                {"given": ("dbias",), "in_place": ("dinp", "dout")},
                {},
            ],
            _LAYERNORM_BEYOND,
        )
    if operation == "linear_forward":
        return _each_with_some(operation, _LINEAR, _LINEAR_FORWARD_VARIANTS, _LINEAR_BEYOND)
    if operation == "linear_backward":
        return _each_with_some(operation, _LINEAR, _LINEAR_BACKWARD_VARIANTS, _LINEAR_BEYOND)
    if operation in ("relu_forward", "gelu_forward", "gelu_erf_forward"):
        return _each_with_some(operation, _ROWS, [{}, {"in_place": ("out", "inp")}, {"spread": 5.0}])
    if operation in ("relu_backward", "gelu_backward", "gelu_erf_backward"):
        return _each_with_some(operation, _ROWS, [{}, {"in_place": ("dinp", "dout")}, {"spread": 5.0}])
    if operation.startswith("rotary"):
        return _rotary_cases(operation)
    if operation in ("attention_forward", "attention_backward"):
        return _attention_cases(operation)
    if operation == "attention_weights":
        return _weights_cases()
    if operation == "decode_tokens":
        return _decoding_cases()
    if operation == "sample_token":
        return _sampling_cases()
    if operation == "dropout_forward":
        rates = [{"rate": rate, "key": DROPOUT_KEY} for rate in _DROPOUT_RATES]
        variants = [{"options": options} for options in rates]
        variants += [{"options": rates[1], "given": ("residual",)}, {"options": rates[2], "in_place": ("out", "inp")}]
        variants += [{"options": rates[1], "given": ("residual",), "in_place": ("out", "residual")}]
        variants += [{"options": rates[0], "given": ("residual",), "in_place": ("out", "inp")}]
        return _each_with_some(operation, _ROWS, variants)
    if operation == "dropout_backward":
        variants = [{"options": {"rate": rate, "key": DROPOUT_KEY}} for rate in _DROPOUT_RATES]
        variants += [{**variant, "in_place": ("dinp", "dout")} for variant in variants]
        return _each_with_some(operation, _ROWS, variants)
    if operation == "cross_entropy":
        return _cross_entropy_cases()
    if operation == "squared_norm":
        sizes = [(1, 1.0), (7, 1.0), (1023, 1e-3), (65_537, 1.0), (300_007, 10.0)]
        return [Case(operation, {"P": P}, spread=spread) for P, spread in sizes]
    if operation == "adamw":
        return _adamw_cases()
    if operation == "muon":
        return _muon_cases()
    raise ValueError(f"unknown operation {operation!r}")
