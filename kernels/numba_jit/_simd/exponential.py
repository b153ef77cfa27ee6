"""2^x and e^x of vectors, to about one unit in the last place.

2^x is split into 2^n, with n a multiple of 1/steps, from the exponent bits and a table, and 2^f, with a small f, from a
polynomial.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

from llvmlite import ir

from .._runtime.target import TARGET
from .polynomials import interpolated, polynomial
from .vector import I32, Lanes, Vec

MANTISSA, BIAS = {32: 23, 64: 52}, {32: 127, 64: 1023}  # of the IEEE formats: bits of the fraction, and of exponent 0


def exp2(lanes: Lanes, x: Vec) -> Vec:
    """2^x: 0 for -inf, inf for inf, NaN for NaN; denormal results are correct. For the error see EXP2_POLYNOMIAL."""
    if TARGET.scalef:  # x less the nearest multiple of 1/steps; 0 for infinities
        fraction = _avx512(lanes, "reduce", x, ir.Constant(I32, (_steps(lanes).bit_length() - 1) << 4))
        return _power(lanes, x + _rounding(lanes), x - fraction, fraction)
    x = _between(lanes, x, *EXP2_RANGE[lanes.bits])
    shifted = x + _rounding(lanes)
    rounded = shifted - _rounding(lanes)
    return _power(lanes, shifted, rounded, x - rounded)


def exp_of(lanes: Lanes, scale: Vec | float = 1.0) -> Callable[[Vec], Vec]:
    """The function e^(scale x) of x, for a positive scale; special values as in `exp2`.

    It is 2^(log2(e) scale x), with this product in twice the precision: if it were rounded, the result would be off by
    as many units in the last place as the product is large. With FMA, scale x is not rounded either.
    """
    scale = lanes.vec(scale)
    low, high = EXP2_RANGE[lanes.bits]
    if not TARGET.fma:
        return lambda x: _exp_without_fma(lanes, _between(lanes, x * scale, low * LN2, high * LN2))
    log2e, log2e_rest = (lanes.vec(part) for part in LOG2E_PARTS[lanes.bits])
    factor = log2e * scale
    factor_rest = lanes.fma(log2e_rest, scale, lanes.fma(log2e, scale, -factor))
    lowest, highest = lanes.vec(low * LN2) / scale, lanes.vec(high * LN2) / scale

    def exp(x: Vec) -> Vec:
        if not TARGET.scalef:
            x = _between(lanes, x, lowest, highest)
        shifted = lanes.fma(x, factor, _rounding(lanes))
        rounded = shifted - _rounding(lanes)
        fraction = lanes.fma(x, factor_rest, lanes.fma(x, factor, -rounded))
        if TARGET.scalef:  # for an infinite or huge x it may be anything: the power is 0 or inf
            fraction = _avx512(lanes, "range", fraction, lanes.vec(1.0).value, ir.Constant(I32, SMALLER_OF_SIZES))
        return _power(lanes, shifted, rounded, fraction)

    return exp


def _steps(lanes: Lanes) -> int:
    """Powers of 2 per octave that come from a table."""
    return lanes.count if TARGET.scalef else 1


def _exp_without_fma(lanes: Lanes, x: Vec) -> Vec:
    """e^x: n ln(2) is subtracted from x in two parts, the first of which times n is exact (Cody & Waite 1980)."""
    ln2, ln2_rest = LN2_PARTS[lanes.bits]
    shifted = x * LOG2E + _rounding(lanes)
    n = shifted - _rounding(lanes)
    return _power(lanes, shifted, n, (x - n * ln2 - n * ln2_rest) * LOG2E)


def _between(lanes: Lanes, x: Vec, low: Vec | float, high: Vec | float) -> Vec:
    """x, clamped to [low, high]"""
    low, high = lanes.vec(low), lanes.vec(high)
    x = low.where(low.compare(">", x), x)  # with the operands in this order a NaN passes
    return high.where(high.compare("<", x), x)


def _rounding(lanes: Lanes) -> Vec:
    """A number so large that adding it rounds to a multiple of 1/steps, and leaves the multiple in the lowest bits."""
    return lanes.vec(1.5 * 2.0 ** MANTISSA[lanes.bits] / _steps(lanes))


def _power(lanes: Lanes, shifted: Vec, rounded: Vec, fraction: Vec) -> Vec:
    """2^(rounded + fraction), with `rounded` a multiple of 1/steps and |fraction| <= 1/(2 steps)

    `shifted` is `rounded` + `_rounding`.
    """
    b = lanes.builder
    if TARGET.scalef:
        powers = Vec(lanes, ir.Constant(lanes.type, [2.0 ** (step / _steps(lanes)) for step in range(_steps(lanes))]))
        power = _permute(lanes, powers, shifted)
        less_one = fraction * polynomial(lanes, fraction, EXP2_POLYNOMIAL[lanes.bits, _steps(lanes)][:-1])
        return _avx512(lanes, "scalef", lanes.fma(power, less_one, power), rounded.value)  # takes its integer part
    power = polynomial(lanes, fraction, EXP2_POLYNOMIAL[lanes.bits, _steps(lanes)])
    # 2^n goes into exponent bits in two halves, so that neither overflows before the result does
    shift = _rounding(lanes)
    integer = b.sub(b.bitcast(shifted.value, lanes.integers), b.bitcast(shift.value, lanes.integers))
    half = b.ashr(integer, lanes.integer_constant(1))
    for part in (half, b.sub(integer, half)):
        biased = b.add(part, lanes.integer_constant(BIAS[lanes.bits]))
        exponent = b.shl(biased, lanes.integer_constant(MANTISSA[lanes.bits]))
        power = power * Vec(lanes, b.bitcast(exponent, lanes.type))
    return power


def _avx512(lanes: Lanes, name: str, x: Vec, *arguments: ir.Value) -> Vec:
    """An AVX-512 instruction that LLVM only offers with a mask and a rounding mode."""
    masks = ir.IntType(lanes.count)
    function = lanes.intrinsic(
        f"llvm.x86.avx512.mask.{name}.p{'s' if lanes.bits == 32 else 'd'}.512",
        lanes.type, [lanes.type, *(argument.type for argument in arguments), lanes.type, masks, I32],
    )  # fmt: skip
    rounding = ir.Constant(I32, 4)  # the thread's current mode
    values = [x.value, *arguments, x.value, ir.Constant(masks, -1), rounding]
    return Vec(lanes, lanes.builder.call(function, values))


def _permute(lanes: Lanes, table: Vec, index: Vec) -> Vec:
    """The lanes of `table` that the lowest bits of `index` select."""
    function = lanes.intrinsic(
        f"llvm.x86.avx512.permvar.{'sf' if lanes.bits == 32 else 'df'}.512", lanes.type, [lanes.type, lanes.integers]
    )
    bits = lanes.builder.bitcast(index.value, lanes.integers)
    return Vec(lanes, lanes.builder.call(function, [table.value, bits]))


LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
EXP2_RANGE = {32: (-152.0, 129.0), 64: (-1077.0, 1025.0)}  # below the first 2^x is 0, from the second on inf
SMALLER_OF_SIZES = 2  # the smaller of two magnitudes with the sign of the first; of NaN and a number, the number


def _in_two(number: Decimal, bits: int) -> tuple[float, float]:
    """A number, rounded to `bits` binary places, and the rest."""
    high = Decimal(round(number * 2**bits)) / 2**bits
    return float(high), float(number - high)


def _exp2_polynomial(degree: int, steps: int) -> list[float]:
    """The coefficients of 2^f for |f| <= 1/(2 steps), highest power first."""
    half = Decimal(1) / (2 * steps)
    return interpolated(lambda fraction: Decimal(2) ** fraction, -half, half, degree)


with localcontext(prec=60):
    LOG2E_PARTS = {bits: _in_two(1 / Decimal(2).ln(), places) for bits, places in ((32, 23), (64, 52))}
    # the first part times n, of 8 or 11 bits, is exact
    LN2_PARTS = {bits: _in_two(Decimal(2).ln(), places) for bits, places in ((32, 16), (64, 42))}
    # By bits of an element and steps. The error of exp2 and exp is at most 1.0 ulp in float32 and 1.2 in float64;
    # without FMA it is 1.3 and 1.6.
    EXP2_POLYNOMIAL = {
        (bits, steps): _exp2_polynomial(degree, steps)
        for bits, steps, degree in ((32, 1, 6), (64, 1, 12), (32, 16, 3), (64, 8, 7))
    }
