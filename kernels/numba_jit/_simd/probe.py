"""What this machine can do at most: the yardstick that "fraction of the peak" is measured against."""

from __future__ import annotations

import time

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .._jit import kernel
from .vector import I64, Lanes, Vec

CHAINS = 12  # independent accumulators: enough to hide the latency of a fused multiply-add


@intrinsic
def multiply_add_chains(typingctx, count, sample):
    """Run CHAINS chains of `count` vector multiply-adds in registers; returns something that depends on all."""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, signature.args[1])
        entry, loop, done = builder.block, builder.append_basic_block("chains"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        i, sums = builder.phi(I64), [Vec(lanes, builder.phi(lanes.type)) for _ in range(CHAINS)]
        i.add_incoming(ir.Constant(I64, 0), entry)
        new = [lanes.fma(total, lanes.vec(0.999), 0.001) for total in sums]
        for number, (total, value) in enumerate(zip(sums, new, strict=True)):
            total.value.add_incoming(lanes.vec(float(number)).value, entry)
            total.value.add_incoming(value.value, loop)
        i_next = builder.add(i, ir.Constant(I64, 1))
        i.add_incoming(i_next, loop)
        builder.cbranch(builder.icmp_signed("<", i_next, arguments[0]), loop, done)
        builder.position_at_end(done)
        total = new[0]
        for value in new[1:]:
            total = total + value
        return lanes.reduce(total, lambda a, b: a + b)

    return sample(types.int64, sample), codegen


@kernel()
def _chains(out, count):
    for thread in numba.prange(out.size):
        out[thread] = multiply_add_chains(count, out[thread])


def peak_flops(threads: int, dtype: str = "float32", repeats: int = 7) -> float:
    """Floating-point operations a second of `threads` threads that do nothing but multiply and add."""
    from .target import TARGET

    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        out, count = np.zeros(threads, dtype), 5_000_000
        _chains(out, 1)
        fastest = float("inf")
        for _ in range(repeats):
            started = time.perf_counter()
            _chains(out, count)
            fastest = min(fastest, time.perf_counter() - started)
    finally:
        numba.set_num_threads(before)
    return 2.0 * threads * CHAINS * count * TARGET.lanes(out.itemsize) / fastest
