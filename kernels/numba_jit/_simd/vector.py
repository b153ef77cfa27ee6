"""LLVM vector code written as formulas.

`Lanes` wraps an LLVM builder and a vector type; `Vec` is a value in a register with the usual operators. So a
polynomial in `spans.py` reads as a polynomial, and compiles to one instruction for each of its operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

from llvmlite import ir
from numba.core import cgutils, types

from .._runtime.target import TARGET

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))


class Vec:
    """A vector of floats (or of integers or booleans) in a register."""

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
        """A mask; `how` is "<", ">=", "==", ...: false where either side is NaN."""
        return Vec(self.lanes, self.lanes.builder.fcmp_ordered(how, self.value, self.lanes.vec(other).value))

    def where(self, mask: Vec, other: Vec | float) -> Vec:
        """This where `mask` is true, `other` elsewhere."""
        return Vec(self.lanes, self.lanes.builder.select(mask.value, self.value, self.lanes.vec(other).value))


class Lanes:
    """Vector code of one element type, written through `builder`."""

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
        self.mantissa, self.bias = (23, 127) if self.bits == 32 else (52, 1023)
        self.steps = self.count if TARGET.scalef else 1  # of powers of 2 between whole ones, from a table

    # ------------------------------------------------------------------------------------------------------- values

    def vec(self, value: Vec | float) -> Vec:
        """A constant in all lanes; a Vec stays as it is."""
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
        """The vector at `pointer` (of elements, aligned as an element); lanes outside `mask` are not touched."""
        vector_pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            value = self.builder.load(vector_pointer)
            value.align = self.itemsize
            return Vec(self, value)
        function = self._intrinsic(
            f"llvm.masked.load.v{self.count}f{self.bits}.p0",
            self.type, [self.type.as_pointer(), I32, self.mask_type, self.type],
        )  # fmt: skip
        align = ir.Constant(I32, self.itemsize)
        return Vec(self, self.builder.call(function, [vector_pointer, align, mask.value, self.vec(other).value]))

    def prefetch(self, pointer: ir.Value) -> None:
        """Have the line of `pointer` brought to the second cache."""
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        read, second, data = ir.Constant(I32, 0), ir.Constant(I32, 2), ir.Constant(I32, 1)
        self.builder.call(function, [self.builder.bitcast(pointer, I8.as_pointer()), read, second, data])

    def store(self, value: Vec, pointer: ir.Value, mask: Vec | None = None) -> None:
        """Write a vector; lanes outside `mask` are left as they were."""
        vector_pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value.value, vector_pointer).align = self.itemsize
            return
        function = self._intrinsic(
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
        """a*b + c, rounded once where the CPU can; without FMA hardware the call would be a slow emulation. Vectors of
        float64 with as many lanes may be given too."""
        b, c = self.vec(b), self.vec(c)
        if not TARGET.fma:
            return a * b + c
        kind = a.value.type
        bits = 64 if isinstance(kind.element, ir.DoubleType) else 32
        function = self._intrinsic(f"llvm.fma.v{self.count}f{bits}", kind, [kind] * 3)
        return Vec(self, self.builder.call(function, [a.value, b.value, c.value]))

    def sqrt(self, a: Vec) -> Vec:
        function = self._intrinsic(f"llvm.sqrt.v{self.count}f{self.bits}", self.type, [self.type])
        return Vec(self, self.builder.call(function, [a.value]))

    def scalar_sqrt(self, a: ir.Value) -> ir.Value:
        """The root of one number."""
        return self.builder.call(self._intrinsic(f"llvm.sqrt.f{self.bits}", self.element, [self.element]), [a])

    def maximum(self, a: Vec, b: Vec | float) -> Vec:
        """The larger; b where either is NaN."""
        return a.where(a.compare(">", b), b)

    def add_if(self, condition: ir.Value, value: Vec, addend: Callable[[], Vec]) -> Vec:
        """value + addend() where the scalar `condition` holds, else value; the addend is not loaded then."""
        before = self.builder.block
        with self.builder.if_then(condition):
            total = value + addend()
            added = self.builder.block
        result = self.builder.phi(self.type)
        result.add_incoming(value.value, before)
        result.add_incoming(total.value, added)
        return Vec(self, result)

    def polynomial(self, x: Vec, coefficients: Sequence[float]) -> Vec:
        """Horner's scheme, highest power first."""
        result = self.vec(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.fma(result, x, coefficient)
        return result

    def reduce(self, value: Vec, combine: Callable[[Vec, Vec], Vec]) -> ir.Value:
        """Fold the lanes by halves, in an order that depends on the vector width alone."""
        width = self.count
        while width > 1:
            width //= 2
            order = [(i + width) % self.count for i in range(self.count)]
            lanes = ir.Constant(ir.VectorType(I32, self.count), order)
            moved = self.builder.shuffle_vector(value.value, value.value, lanes)
            value = combine(value, Vec(self, moved))
        return self.builder.extract_element(value.value, ir.Constant(I32, 0))

    def transpose(self, rows: list[Vec]) -> list[Vec]:
        """As many vectors as a vector has lanes, as a square matrix transposed: in each of log2(lanes) rounds, rows
        whose numbers differ in one bit exchange the elements whose numbers differ in it."""
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

    def exp2(self, x: Vec) -> Vec:
        """2^x: -inf gives 0, inf inf, NaN stays NaN, denormal results are right. Error: see EXP2_POLYNOMIAL."""
        if TARGET.scalef:  # x less the nearest multiple of 1/steps; 0 for infinities
            fraction = self._avx512("reduce", x, ir.Constant(I32, (self.steps.bit_length() - 1) << 4))
            return self._power(x + self._rounding(), x - fraction, fraction)
        x = self._between(x, *EXP2_RANGE[self.bits])
        shifted = x + self._rounding()
        rounded = shifted - self._rounding()
        return self._power(shifted, rounded, x - rounded)

    def exp_of(self, scale: Vec | float = 1.0) -> Callable[[Vec], Vec]:
        """The function e^(scale x) of x, for a scale above 0; all as with `exp2`.

        It is 2^(log2(e) scale x), but with this product in twice the precision: rounded off, it would move the result
        by as many units in the last place as it is large. With FMA, scale x is not rounded either.
        """
        scale = self.vec(scale)
        low, high = EXP2_RANGE[self.bits]
        if not TARGET.fma:
            return lambda x: self._exp_without_fma(self._between(x * scale, low * LN2, high * LN2))
        log2e, log2e_rest = (self.vec(part) for part in LOG2E_PARTS[self.bits])
        factor = log2e * scale
        factor_rest = self.fma(log2e_rest, scale, self.fma(log2e, scale, -factor))
        lowest, highest = self.vec(low * LN2) / scale, self.vec(high * LN2) / scale

        def exp(x: Vec) -> Vec:
            if not TARGET.scalef:
                x = self._between(x, lowest, highest)
            shifted = self.fma(x, factor, self._rounding())
            rounded = shifted - self._rounding()
            fraction = self.fma(x, factor_rest, self.fma(x, factor, -rounded))
            if TARGET.scalef:  # of an infinite or huge x it may be anything, and does not count
                fraction = self._avx512("range", fraction, self.vec(1.0).value, ir.Constant(I32, SMALLER_OF_SIZES))
            return self._power(shifted, rounded, fraction)

        return exp

    def _exp_without_fma(self, x: Vec) -> Vec:
        """e^x: n ln(2) is taken from x in two parts, of which the first times n is exact (Cody & Waite 1980)."""
        ln2, ln2_rest = LN2_PARTS[self.bits]
        shifted = x * LOG2E + self._rounding()
        n = shifted - self._rounding()
        return self._power(shifted, n, (x - n * ln2 - n * ln2_rest) * LOG2E)

    def _between(self, x: Vec, low: Vec | float, high: Vec | float) -> Vec:
        """x, but no less than `low` and no more than `high`."""
        low, high = self.vec(low), self.vec(high)
        x = low.where(low.compare(">", x), x)  # in this order of operands a NaN passes
        return high.where(high.compare("<", x), x)

    def _rounding(self) -> Vec:
        """So large that adding it rounds to a multiple of 1/`steps`, whose number is then in the lowest bits."""
        return self.vec(1.5 * 2.0 ** self.mantissa / self.steps)

    def _power(self, shifted: Vec, rounded: Vec, fraction: Vec) -> Vec:
        """2^(rounded + fraction), with `rounded` a multiple of 1/steps, `shifted` the same before `_rounding` was taken
        off it, and |fraction| <= 1/(2 steps)."""
        b = self.builder
        if TARGET.scalef:
            powers = Vec(self, ir.Constant(self.type, [2.0 ** (step / self.steps) for step in range(self.steps)]))
            power = self._permute(powers, shifted)
            less_one = fraction * self.polynomial(fraction, EXP2_POLYNOMIAL[self.bits, self.steps][:-1])
            return self._avx512("scalef", self.fma(power, less_one, power), rounded.value)  # rounds down to an integer
        power = self.polynomial(fraction, EXP2_POLYNOMIAL[self.bits, self.steps])
        # 2^n written into exponent bits, in two halves, so that neither overflows before the result does
        shift = self._rounding()
        integer = b.sub(b.bitcast(shifted.value, self.integers), b.bitcast(shift.value, self.integers))
        half = b.ashr(integer, self.integer_constant(1))
        for part in (half, b.sub(integer, half)):
            exponent = b.shl(b.add(part, self.integer_constant(self.bias)), self.integer_constant(self.mantissa))
            power = power * Vec(self, b.bitcast(exponent, self.type))
        return power

    def _avx512(self, name: str, x: Vec, *arguments: ir.Value) -> Vec:
        """An AVX-512 instruction that LLVM offers with a mask and a rounding mode only."""
        masks = ir.IntType(self.count)
        function = self._intrinsic(
            f"llvm.x86.avx512.mask.{name}.p{'s' if self.bits == 32 else 'd'}.512",
            self.type, [self.type, *(argument.type for argument in arguments), self.type, masks, I32],
        )  # fmt: skip
        rounding = ir.Constant(I32, 4)  # as the mode of the thread says
        values = [x.value, *arguments, x.value, ir.Constant(masks, -1), rounding]
        return Vec(self, self.builder.call(function, values))

    def _permute(self, table: Vec, index: Vec) -> Vec:
        """The lanes of `table` that the lowest bits of `index` name."""
        function = self._intrinsic(
            f"llvm.x86.avx512.permvar.{'sf' if self.bits == 32 else 'df'}.512", self.type, [self.type, self.integers]
        )
        bits = self.builder.bitcast(index.value, self.integers)
        return Vec(self, self.builder.call(function, [table.value, bits]))

    def _intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        # llvmlite's declare_intrinsic does not know vector types
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)


LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
EXP2_RANGE = {32: (-152.0, 129.0), 64: (-1077.0, 1025.0)}  # below the one powers are 0, from the other on inf
SMALLER_OF_SIZES = 2  # of two numbers, with the sign of the first; if that is NaN, the second with its sign


def _in_two(number: Decimal, bits: int) -> tuple[float, float]:
    """A number as the nearest one with `bits` binary places, and the rest."""
    high = Decimal(round(number * 2**bits)) / 2**bits
    return float(high), float(number - high)


def _exp2_polynomial(degree: int, steps: int) -> list[float]:
    """2^f for |f| <= 1/(2 steps), highest power first: interpolated at Chebyshev nodes, in exact decimal arithmetic so
    that the double precision coefficients are correctly rounded."""
    cosines = [math.cos(math.pi * (2 * i + 1) / (2 * degree + 2)) for i in range(degree + 1)]
    nodes = [Decimal(cosine) / (2 * steps) for cosine in cosines]
    values = [Decimal(2) ** node for node in nodes]
    # Newton's divided differences, then expanded to powers
    for order in range(1, degree + 1):
        for i in range(degree, order - 1, -1):
            values[i] = (values[i] - values[i - 1]) / (nodes[i] - nodes[i - order])
    powers = [values[degree]]
    for i in range(degree - 1, -1, -1):
        powers = [Decimal(0), *powers]
        for j in range(len(powers) - 1):
            powers[j] -= nodes[i] * powers[j + 1]
        powers[0] += values[i]
    return [float(p) for p in reversed(powers)]


with localcontext(prec=60):
    LOG2E_PARTS = {bits: _in_two(1 / Decimal(2).ln(), places) for bits, places in ((32, 23), (64, 52))}
    # the first part times n, of 8 or 11 bits, is exact
    LN2_PARTS = {bits: _in_two(Decimal(2).ln(), places) for bits, places in ((32, 16), (64, 42))}
    # By bits of an element, and steps. With them, exp2 and exp err by 1.0 ulp at most in float32 and 1.2 in float64;
    # without FMA by 1.3 and 1.6.
    EXP2_POLYNOMIAL = {
        (bits, steps): _exp2_polynomial(degree, steps)
        for bits, steps, degree in ((32, 1, 6), (64, 1, 12), (32, 16, 3), (64, 8, 7))
    }
