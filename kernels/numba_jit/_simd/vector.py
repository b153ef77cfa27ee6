"""LLVM vector code written as formulas.

`Lanes` wraps an LLVM builder and a vector type; `Vec` is a value in a register with the usual operators. So a
polynomial reads as a polynomial, and compiles to one instruction per operation.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types

from .._runtime.target import TARGET

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))


class Vec:
    """A vector of floats (or integers, or booleans) in a register."""

    def __init__(self, lanes: Lanes, value: ir.Value) -> None:
        self.lanes = lanes
        self.value = value

    def _binary(self, operation: Callable[..., ir.Value], other: Vec | float) -> Vec:
        return Vec(self.lanes, operation(self.value, self.lanes.vec(other).value))

    def __add__(self, other: Vec | float) -> Vec:
        return self._binary(self.lanes.builder.fadd, other)

    def __sub__(self, other: Vec | float) -> Vec:
        return self._binary(self.lanes.builder.fsub, other)

    def __mul__(self, other: Vec | float) -> Vec:
        return self._binary(self.lanes.builder.fmul, other)

    def __truediv__(self, other: Vec | float) -> Vec:
        return self._binary(self.lanes.builder.fdiv, other)

    def __neg__(self) -> Vec:
        return Vec(self.lanes, self.lanes.builder.fneg(self.value))

    def compare(self, how: str, other: Vec | float) -> Vec:
        """A mask, false where either side is NaN; `how` is "<", ">=", "==", ..."""
        return Vec(self.lanes, self.lanes.builder.fcmp_ordered(how, self.value, self.lanes.vec(other).value))

    def where(self, mask: Vec, other: Vec | float) -> Vec:
        """This vector where `mask` is true, `other` elsewhere."""
        return Vec(self.lanes, self.lanes.builder.select(mask.value, self.value, self.lanes.vec(other).value))


class Lanes:
    """Writes vector code for one element type through an LLVM builder."""

    def __init__(self, builder: ir.IRBuilder, element: types.Float) -> None:
        self.builder = builder
        self.bits = element.bitwidth
        self.itemsize = self.bits // 8
        self.count = TARGET.lanes(self.itemsize)
        self.element = ir.FloatType() if self.bits == 32 else ir.DoubleType()
        self.type = ir.VectorType(self.element, self.count)
        self.integer = ir.IntType(self.bits)
        self.integers = ir.VectorType(self.integer, self.count)
        self.mask_type = ir.VectorType(I1, self.count)

    # ------------------------------------------------------------------------------------------------------- values

    def vec(self, value: Vec | float) -> Vec:
        """A constant in all lanes; a Vec is returned as it is."""
        if isinstance(value, Vec):
            return value
        return Vec(self, ir.Constant(self.type, [float(value)] * self.count))

    def integer_constant(self, value: int) -> ir.Constant:
        return ir.Constant(self.integers, [value] * self.count)

    def splat(self, scalar: ir.Value) -> Vec:
        """One scalar in all lanes."""
        vector_type = ir.VectorType(scalar.type, self.count)
        first = self.builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.Constant(I32, 0))
        lanes = ir.Constant(ir.VectorType(I32, self.count), [0] * self.count)
        return Vec(self, self.builder.shuffle_vector(first, ir.Constant(vector_type, ir.Undefined), lanes))

    def mask_below(self, count: ir.Value) -> Vec:
        """True in the first `count` (int64) lanes."""
        index = ir.Constant(ir.VectorType(I64, self.count), list(range(self.count)))
        return Vec(self, self.builder.icmp_signed("<", index, self.splat(count).value))

    # ------------------------------------------------------------------------------------------------------- memory

    def load(self, pointer: ir.Value, mask: Vec | None = None, other: Vec | float = 0.0) -> Vec:
        """The vector at `pointer`, an address of elements with their alignment; lanes outside `mask` are not read."""
        vector_pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            value = self.builder.load(vector_pointer)
            value.align = self.itemsize
            return Vec(self, value)
        function = self.intrinsic(
            f"llvm.masked.load.v{self.count}f{self.bits}.p0",
            self.type, [self.type.as_pointer(), I32, self.mask_type, self.type],
        )  # fmt: skip
        align = ir.Constant(I32, self.itemsize)
        return Vec(self, self.builder.call(function, [vector_pointer, align, mask.value, self.vec(other).value]))

    def load_halves(self, pointer: ir.Value, mask: Vec | None = None) -> Vec:
        """The bfloat16 numbers at `pointer`, an address of uint16, as float32; 0 in lanes outside `mask`."""
        short = ir.VectorType(ir.IntType(16), self.count)
        at = self.builder.bitcast(pointer, short.as_pointer())
        if mask is None:
            bits = self.builder.load(at)
            bits.align = 2
        else:
            function = self.intrinsic(
                f"llvm.masked.load.v{self.count}i16.p0", short, [short.as_pointer(), I32, self.mask_type, short]
            )
            nothing = ir.Constant(short, [0] * self.count)
            bits = self.builder.call(function, [at, ir.Constant(I32, 2), mask.value, nothing])
        wide = self.builder.shl(self.builder.zext(bits, self.integers), self.integer_constant(16))
        return Vec(self, self.builder.bitcast(wide, self.type))

    def store_halves(self, value: Vec, pointer: ir.Value, mask: Vec | None = None) -> None:
        """Write float32 numbers that are bfloat16 ones as uint16."""
        short = ir.VectorType(ir.IntType(16), self.count)
        at = self.builder.bitcast(pointer, short.as_pointer())
        bits = self.builder.lshr(self.builder.bitcast(value.value, self.integers), self.integer_constant(16))
        bits = self.builder.trunc(bits, short)
        if mask is None:
            self.builder.store(bits, at).align = 2
            return
        function = self.intrinsic(
            f"llvm.masked.store.v{self.count}i16.p0",
            ir.VoidType(), [short, short.as_pointer(), I32, self.mask_type],
        )  # fmt: skip
        self.builder.call(function, [bits, at, ir.Constant(I32, 2), mask.value])

    def prefetch(self, pointer: ir.Value) -> None:
        """Fetch the cache line at `pointer` into the second-level cache."""
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        read, second, data = ir.Constant(I32, 0), ir.Constant(I32, 2), ir.Constant(I32, 1)
        self.builder.call(function, [self.builder.bitcast(pointer, I8.as_pointer()), read, second, data])

    def store(self, value: Vec, pointer: ir.Value, mask: Vec | None = None) -> None:
        """Write a vector; lanes outside `mask` are not written."""
        vector_pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value.value, vector_pointer).align = self.itemsize
            return
        function = self.intrinsic(
            f"llvm.masked.store.v{self.count}f{self.bits}.p0",
            ir.VoidType(), [self.type, self.type.as_pointer(), I32, self.mask_type],
        )  # fmt: skip
        align = ir.Constant(I32, self.itemsize)
        self.builder.call(function, [value.value, vector_pointer, align, mask.value])

    def broadcast(self, pointer: ir.Value) -> Vec:
        """The element at `pointer` in all lanes."""
        scalar = self.builder.load(pointer)
        scalar.align = self.itemsize
        return self.splat(scalar)

    # --------------------------------------------------------------------------------------------------- arithmetic

    def fma(self, a: Vec, b: Vec | float, c: Vec | float) -> Vec:
        """a*b + c, rounded once if the CPU has FMA; without it, the call would be a slow emulation.

        Also takes vectors of as many float64 values.
        """
        b, c = self.vec(b), self.vec(c)
        if not TARGET.fma:
            return a * b + c
        kind = a.value.type
        bits = 64 if isinstance(kind.element, ir.DoubleType) else 32
        function = self.intrinsic(f"llvm.fma.v{self.count}f{bits}", kind, [kind] * 3)
        return Vec(self, self.builder.call(function, [a.value, b.value, c.value]))

    def sqrt(self, a: Vec) -> Vec:
        function = self.intrinsic(f"llvm.sqrt.v{self.count}f{self.bits}", self.type, [self.type])
        return Vec(self, self.builder.call(function, [a.value]))

    def ceil(self, a: Vec) -> Vec:
        """Each number rounded up to a whole one."""
        function = self.intrinsic(f"llvm.ceil.v{self.count}f{self.bits}", self.type, [self.type])
        return Vec(self, self.builder.call(function, [a.value]))

    def scalar_sqrt(self, a: ir.Value) -> ir.Value:
        """The square root of one number."""
        return self.builder.call(self.intrinsic(f"llvm.sqrt.f{self.bits}", self.element, [self.element]), [a])

    def maximum(self, a: Vec, b: Vec | float) -> Vec:
        """The larger of two vectors; b where either is NaN."""
        return a.where(a.compare(">", b), b)

    def add_if(self, condition: ir.Value, value: Vec, addend: Callable[[], Vec]) -> Vec:
        """value + addend() if the scalar `condition` holds, else value, without loading the addend."""
        before = self.builder.block
        with self.builder.if_then(condition):
            total = value + addend()
            added = self.builder.block
        result = self.builder.phi(self.type)
        result.add_incoming(value.value, before)
        result.add_incoming(total.value, added)
        return Vec(self, result)

    def reduce(self, value: Vec, combine: Callable[[Vec, Vec], Vec]) -> ir.Value:
        """Fold the lanes, half by half: an order that depends on the vector width alone."""
        width = self.count
        while width > 1:
            width //= 2
            order = [(i + width) % self.count for i in range(self.count)]
            lanes = ir.Constant(ir.VectorType(I32, self.count), order)
            moved = self.builder.shuffle_vector(value.value, value.value, lanes)
            value = combine(value, Vec(self, moved))
        return self.builder.extract_element(value.value, ir.Constant(I32, 0))

    def transpose(self, rows: list[Vec]) -> list[Vec]:
        """Transpose a square matrix, given as one vector per row.

        There are log2(lanes) rounds, one per bit: rows whose numbers differ in that bit alone exchange the elements
        whose numbers differ in it.
        """
        order = ir.VectorType(I32, self.count)
        bit = 1
        while bit < self.count:
            result = list(rows)
            low = [e if not e & bit else e - bit + self.count for e in range(self.count)]
            high = [e + bit if not e & bit else e + self.count for e in range(self.count)]
            for i in range(self.count):
                if not i & bit:
                    a, b = rows[i].value, rows[i | bit].value
                    result[i] = Vec(self, self.builder.shuffle_vector(a, b, ir.Constant(order, low)))
                    result[i | bit] = Vec(self, self.builder.shuffle_vector(a, b, ir.Constant(order, high)))
            rows = result
            bit *= 2
        return rows

    def intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        """An LLVM function by its name; llvmlite's declare_intrinsic does not know vector types."""
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)
