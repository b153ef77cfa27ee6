"""The softmax of attention and its gradient over a block of scores, for as many rows at a time as a vector has lanes.

A number per row, such as its largest score, is then one lane of a vector, and the maxima and sums of all rows are
folded together. Rows consist of whole vectors, except on the causal diagonal, where the last vectors form a triangle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .exponential import LOG2E, exp_of
from .vector import I32, I64, Lanes, Vec
from .views import struct


@intrinsic
def softmax_rows(typingctx, scores, state, scale, first, reach, octaves):
    """Turn causal scores into weights, for at most as many rows as a vector has lanes:

        new = max(largest, max of the row);  shrink = exp((largest - new) * scale);  largest = new
        row = exp((row - new) * scale);  total = total * shrink + sum of the row

    With `octaves`, new is rounded up so that new * scale is a whole multiple of log 2: when it grows, weights change by
    a power of 2, which is exact, and so weights in bfloat16 do not depend on what was largest before.
    The rows of `state` are largest, total and shrink of each row; if `first`, largest and total start as -inf and 0.
    The diagonal begins after a whole number of vectors. Beyond it, the row is set to 0 as far as a tile of `reach` rows
    reads.
    """

    def codegen(context, builder, signature, arguments):
        S, kept = (struct(context, builder, *pair) for pair in zip(signature.args[:2], arguments[:2], strict=True))
        _, _, scale_, first_, reach_, octaves_ = arguments
        lanes = Lanes(builder, scores.dtype)
        rows = _Rows(lanes, S, reach_)
        largest_at, total_at, shrink_at = (
            builder.gep(kept.data, [builder.mul(kept.row, ir.Constant(I64, i))]) for i in range(3)
        )
        exp = exp_of(lanes, lanes.splat(scale_))
        largest_before = _choose(lanes, first_, lanes.vec(float("-inf")), lanes.load(largest_at))
        total_before = _choose(lanes, first_, lanes.vec(0.0), lanes.load(total_at))

        largest = _row_maxima(lanes, rows)
        per_octave = lanes.splat(scale_) * LOG2E
        largest = _choose(lanes, octaves_, lanes.ceil(largest * per_octave) / per_octave, largest)
        new = lanes.maximum(largest, largest_before)
        decay = exp(largest_before - new)
        lanes.store(new, largest_at)
        lanes.store(decay, shrink_at)
        sums = cgutils.alloca_once(builder, lanes.type, size=lanes.count)

        def row(i: ir.Value, _: list[Vec]) -> list[Vec]:
            start = builder.gep(rows.data, [builder.mul(i, rows.row)])
            center = lanes.broadcast(builder.gep(largest_at, [i]))

            def weights(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
                at = builder.gep(start, [offset])
                power = exp(lanes.load(at) - center)
                power = power if mask is None else power.where(mask, 0.0)
                lanes.store(power, at)
                return [carried[0] + power]

            (found,) = _along_row(lanes, i, rows, [lanes.vec(0.0)], weights)
            builder.store(found.value, builder.gep(sums, [i]))
            _zeros(lanes, start, rows)
            return []

        _loop(lanes, rows.number, 1, [], row)
        by_row = [Vec(lanes, builder.load(builder.gep(sums, [ir.Constant(I64, i)]))) for i in range(lanes.count)]
        total_now = lanes.fma(total_before, decay, _fold_rows(lanes, by_row, lambda a, b: a + b))
        lanes.store(total_now, total_at)
        return context.get_dummy_value()

    return types.void(scores, state, scores.dtype, types.boolean, types.int64, types.boolean), codegen


@intrinsic
def softmax_gradient_rows(typingctx, weights, gradients, lse, row_sum, scale, reach):
    """Turn causal scores into weights and gradients of weights into gradients of scores, for rows as in `softmax_rows`:

        weight = exp(score * scale - lse);  gradient = weight * (gradient - row_sum) * scale
    """

    def codegen(context, builder, signature, arguments):
        S, D, L, R = (struct(context, builder, *pair) for pair in zip(signature.args[:4], arguments[:4], strict=True))
        scale_, reach_ = arguments[4:]
        lanes = Lanes(builder, weights.dtype)
        rows = _Rows(lanes, S, reach_)
        d_data, d_row, lse_at, sum_at = D.data, D.row, L.data, R.data
        factor, exp = lanes.splat(scale_), exp_of(lanes)

        def along(i: ir.Value, _: list[Vec]) -> list[Vec]:
            start = builder.gep(rows.data, [builder.mul(i, rows.row)])
            d_start = builder.gep(d_data, [builder.mul(i, d_row)])
            center = -lanes.broadcast(builder.gep(lse_at, [i]))
            shared = lanes.broadcast(builder.gep(sum_at, [i]))

            def gradient(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
                at, d_at = builder.gep(start, [offset]), builder.gep(d_start, [offset])
                power = exp(lanes.fma(lanes.load(at), factor, center))
                slope = power * ((lanes.load(d_at) - shared) * factor)
                for value, target in ((power, at), (slope, d_at)):
                    lanes.store(value if mask is None else value.where(mask, 0.0), target)
                return []

            _along_row(lanes, i, rows, [], gradient)
            _zeros(lanes, start, rows)
            _zeros(lanes, d_start, rows)
            return []

        _loop(lanes, rows.number, 1, [], along)
        return context.get_dummy_value()

    return types.void(weights, gradients, lse, row_sum, weights.dtype, types.int64), codegen


# --------------------------------------------------------------------------------------------------------------- pieces


class _Rows:
    """Causal rows as vectors.

    Row i has `seen` elements, which are whole vectors, and i + 1 more on the `diagonal`. The `fill` elements after the
    vector with the diagonal are to be 0, as far as the row's tile reads, which may end `reach` rows below.
    """

    def __init__(self, lanes: Lanes, rows: Any, reach: ir.Value) -> None:
        builder, one = lanes.builder, ir.Constant(I64, 1)
        self.data, self.row, self.number = rows.data, rows.row, rows.rows
        self.diagonal = builder.icmp_signed("<", rows.diagonal, rows.columns)
        self.seen = builder.select(self.diagonal, rows.diagonal, rows.columns)
        count = ir.Constant(I64, lanes.count)
        most = builder.sub(builder.sdiv(builder.sub(rows.columns, self.seen), count), one)
        fill = builder.sdiv(builder.add(reach, ir.Constant(I64, lanes.count - 2)), count)
        fill = builder.select(builder.icmp_signed("<", fill, most), fill, most)
        self.fill = builder.select(self.diagonal, builder.mul(fill, count), ir.Constant(I64, 0))


def _choose(lanes: Lanes, condition: ir.Value, a: Vec, b: Vec) -> Vec:
    """a where the scalar `condition` holds, else b"""
    return Vec(lanes, lanes.builder.select(condition, a.value, b.value))


def _loop(
    lanes: Lanes, end: ir.Value, step: int, carried: list[Vec], body: Callable[[ir.Value, list[Vec]], list[Vec]]
) -> list[Vec]:
    """Run body(i, carried) for i = 0, step, ... below `end`; returns the final carried values."""
    builder = lanes.builder
    entry, head = builder.block, builder.append_basic_block("loop")
    inside, done = builder.append_basic_block("loop.body"), builder.append_basic_block("loop.end")
    builder.branch(head)
    builder.position_at_end(head)
    i, state = builder.phi(I64), [Vec(lanes, builder.phi(lanes.type)) for _ in carried]
    i.add_incoming(ir.Constant(I64, 0), entry)
    for phi, value in zip(state, carried, strict=True):
        phi.value.add_incoming(value.value, entry)
    builder.cbranch(builder.icmp_signed("<", i, end), inside, done)
    builder.position_at_end(inside)
    new = body(i, state)
    i.add_incoming(builder.add(i, ir.Constant(I64, step)), builder.block)
    for phi, value in zip(state, new, strict=True):
        phi.value.add_incoming(value.value, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return state


def _if(
    lanes: Lanes, condition: ir.Value, carried: list[Vec], body: Callable[[list[Vec]], list[Vec]]
) -> list[Vec]:
    """body(carried) if `condition`, else carried"""
    builder = lanes.builder
    before = builder.block
    with builder.if_then(condition):
        new = body(carried)
        after = builder.block
    merged = [Vec(lanes, builder.phi(lanes.type)) for _ in carried]
    for phi, value, old in zip(merged, new, carried, strict=True):
        phi.value.add_incoming(old.value, before)
        phi.value.add_incoming(value.value, after)
    return merged


def _along_row(
    lanes: Lanes, i: ir.Value, rows: _Rows, carried: list[Vec],
    body: Callable[[ir.Value, Vec | None, list[Vec]], list[Vec]],
) -> list[Vec]:  # fmt: skip
    """Run body(offset, mask, carried) for each vector of row i; `mask` is None except on the diagonal."""
    builder = lanes.builder
    state = _loop(lanes, rows.seen, lanes.count, carried, lambda offset, values: body(offset, None, values))
    mask = lanes.mask_below(builder.add(i, ir.Constant(I64, 1)))
    return _if(lanes, rows.diagonal, state, lambda values: body(rows.seen, mask, values))


def _zeros(lanes: Lanes, start: ir.Value, rows: _Rows) -> None:
    """Set the part of a row that is to be 0."""
    builder = lanes.builder
    beyond = builder.gep(start, [builder.add(rows.seen, ir.Constant(I64, lanes.count))])

    def clear(offset: ir.Value, _: list[Vec]) -> list[Vec]:
        lanes.store(lanes.vec(0.0), builder.gep(beyond, [offset]))
        return []

    _loop(lanes, rows.fill, lanes.count, [], clear)


def _row_maxima(lanes: Lanes, rows: _Rows) -> Vec:
    """The largest score of each row. NaNs are skipped: they show in the weights. Rows beyond the last repeat it."""
    builder, lowest = lanes.builder, lanes.vec(float("-inf"))
    last = builder.sub(rows.number, ir.Constant(I64, 1))
    starts = []
    for i in range(lanes.count):
        index = ir.Constant(I64, i)
        index = builder.select(builder.icmp_signed("<", index, last), index, last)
        starts.append(builder.gep(rows.data, [builder.mul(index, rows.row)]))

    def whole(offset: ir.Value, largest: list[Vec]) -> list[Vec]:
        return [
            lanes.maximum(lanes.load(builder.gep(start, [offset])), value)
            for start, value in zip(starts, largest, strict=True)
        ]

    def square(largest: list[Vec]) -> list[Vec]:
        found = []
        for i, (start, value) in enumerate(zip(starts, largest, strict=True)):
            mask = Vec(lanes, ir.Constant(lanes.mask_type, [int(j <= i) for j in range(lanes.count)]))
            found.append(lanes.maximum(lanes.load(builder.gep(start, [rows.seen])).where(mask, lowest), value))
        return found

    largest = _loop(lanes, rows.seen, lanes.count, [lowest] * lanes.count, whole)
    return _fold_rows(lanes, _if(lanes, rows.diagonal, largest, square), lanes.maximum)


def _fold_rows(lanes: Lanes, rows: list[Vec], combine: Callable[[Vec, Vec], Vec]) -> Vec:
    """Fold each row: lane i of the result is the fold of all lanes of rows[i], in an order that depends on the vector
    width alone. The rounds are those of `Lanes.transpose`, but each merges two rows into one."""
    builder, order, bit = lanes.builder, ir.VectorType(I32, lanes.count), 1
    while bit < lanes.count:
        low = ir.Constant(order, [e if not e & bit else e - bit + lanes.count for e in range(lanes.count)])
        high = ir.Constant(order, [e + bit if not e & bit else e + lanes.count for e in range(lanes.count)])
        rows = [
            combine(*(Vec(lanes, builder.shuffle_vector(a.value, b.value, which)) for which in (low, high)))
            for a, b in zip(rows[0::2], rows[1::2], strict=True)
        ]
        bit *= 2
    return rows[0]
