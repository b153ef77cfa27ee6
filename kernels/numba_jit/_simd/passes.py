"""A pass over a row: the loop over its vectors, and its operands inside an intrinsic.

    @intrinsic
    def scale(typingctx, row, factor):
        def codegen(context, builder, signature, arguments):
            target, factor_ = operands(context, builder, signature, arguments)
            factors = target.lanes.splat(factor_)

            def body(offset, mask, carried):
                target.store(target.load(offset, mask) * factors, offset, mask)
                return []

            vector_loop(target.lanes, target.size, [], body)

A pass takes whole vectors and one masked vector for the rest, so each element goes through the same instructions
whatever the length of the row.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .vector import I64, Lanes, Vec
from .views import Row, View, struct

Body = Callable[[ir.Value, Vec | None, list[Vec]], list[Vec]]


class Operand:
    """A row inside an intrinsic. Offsets count elements; lanes outside `mask` are neither read nor written."""

    def __init__(self, lanes: Lanes, row: Any, halves: bool = False) -> None:
        """`halves`: it holds bfloat16 numbers as uint16, and is read as float32."""
        self.lanes, self.data, self.size, self.halves = lanes, row.data, row.size, halves

    def load(self, offset: ir.Value, mask: Vec | None = None, other: Vec | float = 0.0) -> Vec:
        """The vector at `offset`, with `other` in the lanes outside the mask."""
        at = self.lanes.builder.gep(self.data, [offset])
        return self.lanes.load_halves(at, mask) if self.halves else self.lanes.load(at, mask, other)

    def store(self, value: Vec, offset: ir.Value, mask: Vec | None = None) -> None:
        self.lanes.store(value, self.lanes.builder.gep(self.data, [offset]), mask)

    def prefetch(self, offset: ir.Value) -> None:
        self.lanes.prefetch(self.lanes.builder.gep(self.data, [offset]))

    @property
    def exists(self) -> ir.Value:
        """False for an empty row, which stands for an optional operand that was not given."""
        return self.lanes.builder.icmp_signed(">", self.size, ir.Constant(I64, 0))


def operands(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> list[Any]:
    """The arguments of an intrinsic: rows as `Operand`, everything else as it is."""
    lanes = Lanes(builder, next(kind.dtype for kind in signature.args if isinstance(kind, View)))
    return [
        Operand(lanes, struct(context, builder, kind, value), kind.dtype == types.uint16)
        if isinstance(kind, Row)
        else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def elementwise(formula: Callable[..., Vec]) -> Any:
    """Turn formula(lanes, x) into the intrinsic function(out, x), or formula(lanes, x, y) into function(out, x, y).

    It sets out[i] = formula(x[i], y[i]) for each element of the row `out`, which may be one of its operands.
    """

    def pass_over(*rows: Row) -> Any:
        def codegen(context, builder, signature, arguments):
            out, *inputs = operands(context, builder, signature, arguments)

            def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
                out.store(formula(out.lanes, *(row.load(offset, mask) for row in inputs)), offset, mask)
                return []

            vector_loop(out.lanes, out.size, [], body)
            return context.get_dummy_value()

        return types.void(*rows), codegen

    if len(inspect.signature(formula).parameters) == 2:

        @intrinsic
        def of_one(typingctx, out, x):
            return pass_over(out, x)

        return of_one

    @intrinsic
    def of_two(typingctx, out, x, y):
        return pass_over(out, x, y)

    return of_two


def vector_loop(
    lanes: Lanes, n: ir.Value, carried: list[Vec], body: Body, chains: int = 1,
    combine: Callable[[Vec, Vec], Vec] = operator.add,
) -> list[Vec]:  # fmt: skip
    """Run body(offset, mask, carried) for each vector of n elements; `mask` is None except for the last, partial one.
    `carried` are values handed from one vector to the next; the final ones are returned.

    Each step of a sum waits for the one before it. With `chains` above 1 as many vectors are processed per turn, each
    with its own carried values, which all start as `carried` and are merged by `combine` at the end. The order of
    operations depends on n alone.
    """
    builder, width = lanes.builder, ir.Constant(I64, lanes.count)
    whole = builder.sub(n, builder.srem(n, width))
    start: ir.Value = ir.Constant(I64, 0)
    if chains > 1:
        turn = ir.Constant(I64, chains * lanes.count)
        turns = builder.sub(n, builder.srem(n, turn))
        states = _whole_vectors(lanes, start, turns, [carried] * chains, body)
        start = turns
        while len(states) > 1:
            half = len(states) // 2
            states = [
                [combine(a, b) for a, b in zip(one, other, strict=True)]
                for one, other in zip(states[:half], states[half:], strict=True)
            ]
        carried = states[0]
    (state,) = _whole_vectors(lanes, start, whole, [carried], body)

    end = builder.block
    tail, done = builder.append_basic_block("pass.tail"), builder.append_basic_block("pass.done")
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


def _whole_vectors(
    lanes: Lanes, start: ir.Value, end: ir.Value, states: list[list[Vec]], body: Body
) -> list[list[Vec]]:
    """The whole vectors from start to end, one per turn for each of the states."""
    builder = lanes.builder
    entry, head = builder.block, builder.append_basic_block("pass")
    loop, done = builder.append_basic_block("pass.body"), builder.append_basic_block("pass.end")
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
