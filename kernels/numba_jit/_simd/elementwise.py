"""Functions of each element of a row: zeros, copies, sums, scaling, ReLU, GELU, dropout.

The destination comes first and may be one of the operands; its size says how many elements are computed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...rng import GOLDEN32, MIX32_A, MIX32_B
from .exponential import LOG2E, exp2
from .passes import elementwise, operands, vector_loop
from .vector import I32, I64, Lanes, Vec

GELU_SCALE = 0.7978845608028654  # sqrt(2/pi)
GELU_CUBIC = 0.044715


@elementwise
def copy(lanes, x):
    """copy(out, x):  out[i] = x[i]"""
    return x


@elementwise
def add(lanes, x, y):
    """add(out, x, y):  out[i] = x[i] + y[i]"""
    return x + y


def _set(target: Any, values: Vec) -> None:
    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        target.store(values, offset, mask)
        return []

    vector_loop(target.lanes, target.size, [], body)


@intrinsic
def zero(typingctx, row):
    """row[i] = 0"""

    def codegen(context, builder, signature, arguments):
        (target,) = operands(context, builder, signature, arguments)
        _set(target, target.lanes.vec(0.0))
        return context.get_dummy_value()

    return types.void(row), codegen


@intrinsic
def fill(typingctx, row, value):
    """row[i] = value"""

    def codegen(context, builder, signature, arguments):
        target, value_ = operands(context, builder, signature, arguments)
        _set(target, target.lanes.splat(value_))
        return context.get_dummy_value()

    return types.void(row, row.dtype), codegen


@intrinsic
def scale(typingctx, row, factor):
    """row[i] *= factor"""

    def codegen(context, builder, signature, arguments):
        target, factor_ = operands(context, builder, signature, arguments)
        factors = target.lanes.splat(factor_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            target.store(target.load(offset, mask) * factors, offset, mask)
            return []

        vector_loop(target.lanes, target.size, [], body)
        return context.get_dummy_value()

    return types.void(row, row.dtype), codegen


@intrinsic
def add_and_prefetch(typingctx, out, x, y, soon):
    """out[i] = x[i] + y[i], while the row `soon` is fetched into the second-level cache.

    For rows of a table that lie anywhere in memory: the CPU cannot guess which one comes next.
    """

    def codegen(context, builder, signature, arguments):
        target, left, right, following = operands(context, builder, signature, arguments)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            following.prefetch(offset)
            target.store(left.load(offset, mask) + right.load(offset, mask), offset, mask)
            return []

        vector_loop(target.lanes, target.size, [], body)
        return context.get_dummy_value()

    return types.void(out, x, y, soon), codegen


# --------------------------------------------------------------------------------------------------------- activations


@elementwise
def relu(lanes, x):
    """relu(out, x):  out[i] = x[i] where it is positive or NaN, else 0"""
    return lanes.vec(0.0).where(x.compare("<=", 0.0), x)


@elementwise
def relu_gradient(lanes, dout, x):
    """relu_gradient(dx, dout, x):  dx[i] = dout[i] where x[i] is positive, else 0"""
    return dout.where(x.compare(">", 0.0), 0.0)


@elementwise
def gelu(lanes, x):
    """gelu(out, x):  out[i] = x/2 (1 + tanh(u)),  u = sqrt(2/pi) (x + 0.044715 x^3),  with x for x[i]

    Computed as x / (1 + exp(-2u)), which loses no digits for negative x.
    """
    return x / (exp2(lanes, x * _gelu_exponent(lanes, x * x)) + 1.0)


@elementwise
def gelu_gradient(lanes, dout, x):
    """gelu_gradient(dx, dout, x):  dx[i] = dout[i] gelu'(x[i])

    With s = 1/(1 + exp(-2u)), so that gelu = x s:  gelu' = s + x s (1 - s) 2 u',  u' = sqrt(2/pi) (1 + 3*0.044715 x^2)
    """
    square = x * x
    power = exp2(lanes, x * _gelu_exponent(lanes, square))
    s = lanes.vec(1.0) / (power + 1.0)
    rest = power * s  # 1 - s without the cancellation; inf * 0 = NaN far out, where it is 1
    rest = rest.where(rest.compare("<", 1.0), 1.0)
    slope = lanes.fma(square, 6.0 * GELU_SCALE * GELU_CUBIC, 2.0 * GELU_SCALE)
    return dout * lanes.fma(s * rest * x, slope, s)


def _gelu_exponent(lanes: Lanes, square: Vec) -> Vec:
    """-2u log2(e) / x as a function of x^2: times x it is the exponent of exp(-2u) in base 2. The factors are folded
    into the constants, so they cost no rounding."""
    factor = -2.0 * LOG2E * GELU_SCALE
    return lanes.fma(square, factor * GELU_CUBIC, factor)


# ------------------------------------------------------------------------------------------------------------- dropout


@intrinsic
def drop(typingctx, out, x, residual, row_hash, column, threshold, factor):
    """out[i] = x[i] * (factor where bits(row_hash, column + i) >= threshold, else 0) + residual[i]

    `residual` may be empty; then nothing is added.
    """

    def codegen(context, builder, signature, arguments):
        target, source, addend, hash_, column_, threshold_, factor_ = operands(
            context, builder, signature, arguments
        )
        lanes = target.lanes
        low = lanes.splat(builder.trunc(hash_, I32))
        high = lanes.splat(builder.trunc(builder.lshr(hash_, ir.Constant(I64, 32)), I32))
        limit, factors = lanes.splat(builder.trunc(threshold_, I32)), lanes.splat(factor_)
        use_residual = addend.exists

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            bits = _random_bits(lanes, low, high, builder.add(column_, offset))
            keep = Vec(lanes, builder.icmp_unsigned(">=", bits, limit.value))
            # multiplied, not selected: a NaN remains one even where it is dropped
            kept = source.load(offset, mask) * factors.where(keep, 0.0)
            target.store(lanes.add_if(use_residual, kept, lambda: addend.load(offset, mask)), offset, mask)
            return []

        vector_loop(lanes, target.size, [], body)
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(out, x, residual, u64, types.int64, u64, out.dtype), codegen


def _random_bits(lanes: Lanes, low: Vec, high: Vec, column: ir.Value) -> ir.Value:
    """32 random bits for columns column, column + 1, ... of a row with the given hash: see `numpy_ref.dropout`."""
    b, integers = lanes.builder, ir.VectorType(I32, lanes.count)

    def constant(value: int) -> ir.Constant:
        return ir.Constant(integers, [value] * lanes.count)

    columns = b.add(lanes.splat(b.trunc(column, I32)).value, ir.Constant(integers, list(range(lanes.count))))
    h = b.add(b.mul(columns, constant(GOLDEN32)), low.value)
    h = b.mul(b.xor(h, b.lshr(h, constant(16))), constant(MIX32_A))
    h = b.add(b.xor(h, b.lshr(h, constant(15))), high.value)
    h = b.mul(h, constant(MIX32_B))
    return b.xor(h, b.lshr(h, constant(15)))
