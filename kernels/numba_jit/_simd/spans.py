"""Passes over a span of consecutive elements: the loop that they share, ReLU, GELU, dropout, sums, scaling, zeros.

Each is a loop over whole vectors and one masked vector for the rest, so that a span of any length has the same code for
each of its elements. Arrays are given with an offset in elements; results may overwrite their input.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...rng import GOLDEN32, MIX32_A, MIX32_B
from .vector import I32, I64, LOG2E, Lanes, Vec
from .views import place

GELU_SCALE = 0.7978845608028654  # sqrt(2/pi)
GELU_CUBIC = 0.044715


def span_loop(
    lanes: Lanes, n: ir.Value, carried: list[Vec], body: Callable[[ir.Value, Vec | None, list[Vec]], list[Vec]],
    chains: int = 1, combine: Callable[[Vec, Vec], Vec] = operator.add,
) -> list[Vec]:  # fmt: skip
    """Run `body(offset, mask, carried)` for each vector of a span of n elements; mask is None but for the last, partial
    one. `carried` are values handed from one vector to the next; their last state is returned.

    A sum waits for the sum before it. With more `chains` than one, so many vectors are taken a turn, each with values
    of its own, which all begin as `carried`; `combine` then makes one of two. The order depends on n alone.
    """
    builder, width = lanes.builder, ir.Constant(I64, lanes.count)
    whole = builder.sub(n, builder.srem(n, width))
    start: ir.Value = ir.Constant(I64, 0)
    if chains > 1:
        turn = ir.Constant(I64, chains * lanes.count)
        turns = builder.sub(n, builder.srem(n, turn))
        states = _vectors(lanes, start, turns, [carried] * chains, body)
        start = turns
        while len(states) > 1:
            half = len(states) // 2
            states = [
                [combine(a, b) for a, b in zip(one, other, strict=True)]
                for one, other in zip(states[:half], states[half:], strict=True)
            ]
        carried = states[0]
    (state,) = _vectors(lanes, start, whole, [carried], body)

    end = builder.block
    tail, done = builder.append_basic_block("span.tail"), builder.append_basic_block("span.done")
    builder.cbranch(builder.icmp_signed("<", whole, n), tail, done)
    builder.position_at_end(tail)
    new = body(whole, lanes.mask_below(builder.sub(n, whole)), state)
    tail_end = builder.block
    builder.branch(done)
    builder.position_at_end(done)
    results = []
    for value, tail_value in zip(state, new, strict=True):
        phi = builder.phi(value.value.type)
        phi.add_incoming(value.value, end)
        phi.add_incoming(tail_value.value, tail_end)
        results.append(Vec(lanes, phi))
    return results


def _vectors(
    lanes: Lanes, start: ir.Value, end: ir.Value, states: list[list[Vec]],
    body: Callable[[ir.Value, Vec | None, list[Vec]], list[Vec]],
) -> list[list[Vec]]:  # fmt: skip
    """The whole vectors from start to end, as many at a time as there are states."""
    builder = lanes.builder
    entry, head = builder.block, builder.append_basic_block("span")
    loop, done = builder.append_basic_block("span.body"), builder.append_basic_block("span.end")
    builder.branch(head)
    builder.position_at_end(head)
    offset = builder.phi(I64)
    offset.add_incoming(start, entry)
    phis = [[Vec(lanes, builder.phi(value.value.type)) for value in state] for state in states]
    builder.cbranch(builder.icmp_signed("<", offset, end), loop, done)
    builder.position_at_end(loop)
    new = []
    for number, state in enumerate(phis):
        at = builder.add(offset, ir.Constant(I64, number * lanes.count)) if number else offset
        new.append(body(at, None, state))
    for state, first, last in zip(phis, states, new, strict=True):
        for phi, before, after in zip(state, first, last, strict=True):
            phi.value.add_incoming(before.value, entry)
            phi.value.add_incoming(after.value, builder.block)
    offset.add_incoming(builder.add(offset, ir.Constant(I64, len(states) * lanes.count)), builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return phis


# ------------------------------------------------------------------------------------------------------------- formulas


def gelu(lanes: Lanes, x: Vec) -> Vec:
    """x/2 (1 + tanh(u)) = x / (1 + exp(-2u)),  u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for negative x."""
    return x / (lanes.exp2(x * _gelu_exponent(lanes, x * x)) + 1.0)


def gelu_derivative(lanes: Lanes, x: Vec) -> Vec:
    """With s = 1/(1 + exp(-2u)), of which gelu = x s:  s + x s (1 - s) 2 u',  u' = sqrt(2/pi) (1 + 3*0.044715 x^2)"""
    square = x * x
    power = lanes.exp2(x * _gelu_exponent(lanes, square))
    s = lanes.vec(1.0) / (power + 1.0)
    rest = power * s  # 1 - s without the cancellation; inf * 0 = NaN far out, where it is 1
    rest = rest.where(rest.compare("<", 1.0), 1.0)
    slope = lanes.fma(square, 6.0 * GELU_SCALE * GELU_CUBIC, 2.0 * GELU_SCALE)
    return lanes.fma(s * rest * x, slope, s)


def _gelu_exponent(lanes: Lanes, square: Vec) -> Vec:
    """Of x^2, -2u log2(e) / x: times x, the exponent of exp(-2u) in the base 2. The factors are part of the constants,
    so they cost no rounding."""
    factor = -2.0 * LOG2E * GELU_SCALE
    return lanes.fma(square, factor * GELU_CUBIC, factor)


def random_bits(lanes: Lanes, low: Vec, high: Vec, column: ir.Value) -> ir.Value:
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


# ---------------------------------------------------------------------------------------------------------------- spans


@intrinsic
def gelu_span(typingctx, OUT, out, INP, inp, n):
    """OUT[out + i] = gelu(INP[inp + i]) for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, INP.dtype)
        target = place(context, builder, OUT, arguments[0], arguments[1])
        source = place(context, builder, INP, arguments[2], arguments[3])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            x = lanes.load(builder.gep(source, [offset]), mask)
            lanes.store(gelu(lanes, x), builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, arguments[4], [], body)
        return context.get_dummy_value()

    return types.void(OUT, types.int64, INP, types.int64, types.int64), codegen


@intrinsic
def gelu_gradient_span(typingctx, DINP, dinp, DOUT, dout, INP, inp, n):
    """DINP[dinp + i] = DOUT[dout + i] * gelu'(INP[inp + i]) for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, INP.dtype)
        target = place(context, builder, DINP, arguments[0], arguments[1])
        gradient = place(context, builder, DOUT, arguments[2], arguments[3])
        source = place(context, builder, INP, arguments[4], arguments[5])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            x = lanes.load(builder.gep(source, [offset]), mask)
            dy = lanes.load(builder.gep(gradient, [offset]), mask)
            lanes.store(dy * gelu_derivative(lanes, x), builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, arguments[6], [], body)
        return context.get_dummy_value()

    n64 = types.int64
    return types.void(DINP, n64, DOUT, n64, INP, n64, n64), codegen


@intrinsic
def relu_span(typingctx, OUT, out, INP, inp, n):
    """OUT[out + i] = INP[inp + i] where that is positive or NaN, else 0, for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, INP.dtype)
        target = place(context, builder, OUT, arguments[0], arguments[1])
        source = place(context, builder, INP, arguments[2], arguments[3])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            x = lanes.load(builder.gep(source, [offset]), mask)
            lanes.store(lanes.vec(0.0).where(x.compare("<=", 0.0), x), builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, arguments[4], [], body)
        return context.get_dummy_value()

    return types.void(OUT, types.int64, INP, types.int64, types.int64), codegen


@intrinsic
def relu_gradient_span(typingctx, DINP, dinp, DOUT, dout, INP, inp, n):
    """DINP[dinp + i] = DOUT[dout + i] where INP[inp + i] is positive, else 0, for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, INP.dtype)
        target = place(context, builder, DINP, arguments[0], arguments[1])
        gradient = place(context, builder, DOUT, arguments[2], arguments[3])
        source = place(context, builder, INP, arguments[4], arguments[5])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            positive = lanes.load(builder.gep(source, [offset]), mask).compare(">", 0.0)
            dy = lanes.load(builder.gep(gradient, [offset]), mask)
            lanes.store(dy.where(positive, 0.0), builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, arguments[6], [], body)
        return context.get_dummy_value()

    n64 = types.int64
    return types.void(DINP, n64, DOUT, n64, INP, n64, n64), codegen


@intrinsic
def add_span(typingctx, OUT, out, X, x, Y, y, n):
    """OUT[out + i] = X[x + i] + Y[y + i] for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        target = place(context, builder, OUT, arguments[0], arguments[1])
        left = place(context, builder, X, arguments[2], arguments[3])
        right = place(context, builder, Y, arguments[4], arguments[5])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            total = lanes.load(builder.gep(left, [offset]), mask) + lanes.load(builder.gep(right, [offset]), mask)
            lanes.store(total, builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, arguments[6], [], body)
        return context.get_dummy_value()

    n64 = types.int64
    return types.void(OUT, n64, X, n64, Y, n64, n64), codegen


@intrinsic
def scale_span(typingctx, X, x, n, factor):
    """X[x + i] *= factor for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        target, scale = place(context, builder, X, arguments[0], arguments[1]), lanes.splat(arguments[3])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            at = builder.gep(target, [offset])
            lanes.store(lanes.load(at, mask) * scale, at, mask)
            return []

        span_loop(lanes, arguments[2], [], body)
        return context.get_dummy_value()

    return types.void(X, types.int64, types.int64, X.dtype), codegen


@intrinsic
def zero_span(typingctx, X, x, n):
    """X[x + i] = 0 for i < n; nothing for n <= 0"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        target = place(context, builder, X, arguments[0], arguments[1])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            lanes.store(lanes.vec(0.0), builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, arguments[2], [], body)
        return context.get_dummy_value()

    return types.void(X, types.int64, types.int64), codegen


@intrinsic
def dropout_span(typingctx, OUT, out, INP, inp, RES, res, use_res, n, row_hash, column, threshold, scale):
    """OUT[out + i] = INP[inp + i] * (scale if bits(row_hash, column + i) >= threshold else 0) + RES[res + i] if use_res
    for i < n"""

    def codegen(context, builder, signature, arguments):
        (OUT_, out_, INP_, inp_, RES_, res_, use_res_, n_, hash_, column_, threshold_, scale_) = arguments
        lanes = Lanes(builder, INP.dtype)
        target = place(context, builder, OUT, OUT_, out_)
        source = place(context, builder, INP, INP_, inp_)
        addend = place(context, builder, RES, RES_, res_)
        low = lanes.splat(builder.trunc(hash_, I32))
        high = lanes.splat(builder.trunc(builder.lshr(hash_, ir.Constant(I64, 32)), I32))
        limit, factor = lanes.splat(builder.trunc(threshold_, I32)), lanes.splat(scale_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            bits = random_bits(lanes, low, high, builder.add(column_, offset))
            keep = Vec(lanes, builder.icmp_unsigned(">=", bits, limit.value))
            # a product, not a choice: a NaN stays one also where it is dropped
            kept = lanes.load(builder.gep(source, [offset]), mask) * factor.where(keep, 0.0)
            result = lanes.add_if(use_res_, kept, lambda: lanes.load(builder.gep(addend, [offset]), mask))
            lanes.store(result, builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, n_, [], body)
        return context.get_dummy_value()

    n64, u64, real = types.int64, types.uint64, INP.dtype
    return types.void(OUT, n64, INP, n64, RES, n64, types.boolean, n64, u64, n64, u64, real), codegen
