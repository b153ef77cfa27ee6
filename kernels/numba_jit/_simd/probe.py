"""What this machine can do at most: the peak rates that the kernels are compared with."""

from __future__ import annotations

import time

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...memory import CACHE_LINE, aligned_zeros
from .._runtime.jit import kernel
from .._runtime.target import TARGET
from .passes import operands, vector_loop
from .vector import I64, Lanes, Vec
from .views import row_of
from .words import PAIR, multiply_words

TRIAD_BYTES = 128 << 20  # moved in one measurement, roughly, at least
CHAINS = 12  # independent accumulators: enough to hide the latency of a fused multiply-add


@intrinsic
def multiply_add_chains(typingctx, count, sample, weight):
    """Run CHAINS chains of `count` vector multiply-adds in registers; returns a number that depends on all of them.

    With words of bfloat16 for `weight`, they are those of such products, which count twice as many operations.
    They start from `sample`, which is known only at run time: LLVM computes a chain that starts from a constant. One
    that starts from 1 stays there, and LLVM moved it out of the loop.
    """

    words = weight == types.uint32

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, signature.args[1])
        start = lanes.splat(arguments[1])
        starts = [start + float(number) for number in range(CHAINS)]
        entry, loop, done = builder.block, builder.append_basic_block("chains"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        i, sums = builder.phi(I64), [Vec(lanes, builder.phi(lanes.type)) for _ in range(CHAINS)]
        i.add_incoming(ir.Constant(I64, 0), entry)
        if words:
            factor = Vec(lanes, builder.bitcast(lanes.splat(arguments[2]).value, lanes.type))
            new = [multiply_words(lanes, factor, factor, total) for total in sums]
        else:
            new = [lanes.fma(total, lanes.splat(arguments[2]), 0.001) for total in sums]
        for total, first, value in zip(sums, starts, new, strict=True):
            total.value.add_incoming(first.value, entry)
            total.value.add_incoming(value.value, loop)
        i_next = builder.add(i, ir.Constant(I64, 1))
        i.add_incoming(i_next, loop)
        builder.cbranch(builder.icmp_signed("<", i_next, arguments[0]), loop, done)
        builder.position_at_end(done)
        total = new[0]
        for value in new[1:]:
            total = total + value
        return lanes.reduce(total, lambda a, b: a + b)

    return sample(types.int64, sample, weight), codegen


@kernel()
def _chains(out, count, weight):
    for thread in numba.prange(out.size):
        out[thread] = multiply_add_chains(count, out[thread], weight)


@kernel()
def _loops(out, count):
    """Run `count` parallel loops, one after the other; each thread writes to a cache line of its own."""
    for _ in range(count):
        for thread in numba.prange(out.shape[0]):
            out[thread, 0] += 1


@intrinsic
def triad(typingctx, out, left, right, factor):
    """out[i] = left[i] + factor * right[i]"""

    def codegen(context, builder, signature, arguments):
        target, first, second, factor_ = operands(context, builder, signature, arguments)
        lanes = target.lanes
        factors = lanes.splat(factor_)

        def body(offset, mask, carried):
            target.store(lanes.fma(factors, second.load(offset, mask), first.load(offset, mask)), offset, mask)
            return []

        vector_loop(lanes, target.size, [], body)
        return context.get_dummy_value()

    return types.void(out, left, right, out.dtype), codegen


@kernel()
def _triad(out, left, right, factor, passes, threads):
    """Each thread makes `passes` passes over its own part, so small arrays too cost a single launch."""
    size = out.size
    for thread in numba.prange(threads):
        start, end = thread * size // threads, (thread + 1) * size // threads
        target = row_of(out, start, end - start)
        for _ in range(passes):
            triad(target, row_of(left, start, target.size), row_of(right, start, target.size), factor)


def triad_bandwidth(threads: int, nbytes: int, dtype: str = "float32", repeats: int = 7) -> float:
    """Bytes per second of McCalpin's triad, a = b + s c, with `threads` threads and arrays of `nbytes` in total.

    Arrays that fit into a cache are measured in the cache. The result is the faster of the triad and the same in place,
    a = a + s c, which reads no line only to overwrite it, like a kernel that updates its arrays. As in STREAM, each
    element counts as two reads and a write.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        real, best = np.dtype(dtype), 0.0
        for arrays in (3, 2):
            size = max(threads * CACHE_LINE // real.itemsize, nbytes // (arrays * real.itemsize))
            left, right, out = (aligned_zeros(size, real) for _ in range(3))
            if arrays == 2:
                out = left
            passes = max(1, TRIAD_BYTES // (3 * size * real.itemsize))
            _triad(out, left, right, real.type(0.5), 1, threads)
            for _ in range(repeats):
                started = time.perf_counter()
                _triad(out, left, right, real.type(0.5), passes, threads)
                best = max(best, 3.0 * size * real.itemsize * passes / (time.perf_counter() - started))
    finally:
        numba.set_num_threads(before)
    return best


def peak_flops(threads: int, dtype: str = "float32", repeats: int = 7) -> float:
    """Floating-point operations per second of `threads` threads that only multiply and add.

    With dtype "bf16", they multiply bfloat16 and add float32, as the products of precision "bf16" do on this CPU.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        words = dtype == "bf16"
        out, count = np.zeros(threads, "float32" if words else dtype), 5_000_000
        weight = np.uint32(0x3C003C00) if words else out.dtype.type(0.999)  # two small numbers
        _chains(out, 1, weight)
        fastest = float("inf")
        for _ in range(repeats):
            started = time.perf_counter()
            _chains(out, count, weight)
            fastest = min(fastest, time.perf_counter() - started)
    finally:
        numba.set_num_threads(before)
    return 2.0 * threads * CHAINS * count * TARGET.lanes(out.itemsize) * (PAIR if words else 1) / fastest


def loop_seconds(threads: int, loops: int = 200, repeats: int = 9) -> float:
    """Seconds to start and end an empty parallel loop: the fastest of `repeats` rounds of `loops` loops."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        out, fastest = aligned_zeros((threads, CACHE_LINE // 8), "float64"), float("inf")
        _loops(out, 1)
        for _ in range(repeats):
            started = time.perf_counter()
            _loops(out, loops)
            fastest = min(fastest, (time.perf_counter() - started) / loops)
    finally:
        numba.set_num_threads(before)
    return fastest
