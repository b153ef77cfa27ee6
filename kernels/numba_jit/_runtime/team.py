"""A team of threads that meet at barriers: for steps of work too short to start threads for each of them.

A parallel loop with one item per thread forms the team: each item calls `join`. The threading layer and the machine
decide whether the items really run at the same time, so the team does not rely on it. The first member waits a little
for the others and then closes the team; a thread that comes later has nothing to do. So the loop is also correct when
its items run one after the other, and no member ever waits for a thread that has not started.

A member that loses its core to another program holds up the others. They offer their cores while they wait, and note
the delay, so that the first member can dismiss them at a convenient point.

`team` is an array of TEAM_SIZE int64 that begin as 0. The cell MESSAGE is for the members' own use.
"""

from __future__ import annotations

import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import device

I32 = ir.IntType(32)
LINE = 16  # int64 in two cache lines, which some CPUs fetch together: no two cells share them
JOINED, MEMBERS, ARRIVED, DELAYED, MESSAGE = (cell * LINE for cell in range(5))
TEAM_SIZE = 5 * LINE
CLOSED = 1 << 32  # added to the number of threads that have joined
# In rounds of waiting. A round takes about 15 ns up to SPINS. From then on the thread offers its core to other programs
# in each round, and may lose it for milliseconds.
SPINS = 20_000
PATIENCE = 10_000  # for others to join: a sleeping thread takes about 50 us to wake up
DELAY = SPINS + 5  # a member that is later than this has lost its core

YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


@device
def join(team, wanted):
    """Join a team that should have `wanted` members; return the caller's number, from 0, or -1 if it is too late."""
    rank = atomic_add(team, JOINED, 1)
    if rank >= CLOSED:
        return -1
    rounds = 0
    if rank == 0:
        while rounds < PATIENCE and atomic_add(team, JOINED, 0) < wanted:
            rounds += 1
            wait(rounds)
        atomic_add(team, MEMBERS, atomic_add(team, JOINED, CLOSED))
    else:
        while atomic_add(team, MEMBERS, 0) == 0:
            rounds += 1
            wait(rounds)
    return rank


@device
def members(team):
    """The number of threads that have joined."""
    return atomic_load(team, MEMBERS)


@device
def barrier(team, size, patient=False):
    """Wait until all `size` members have arrived; whatever they wrote before can be read afterwards.

    A long wait is counted in DELAYED, unless `patient`: then one of them is known to take its time.
    """
    if size == 1:
        return
    arrived = atomic_add(team, ARRIVED, 1)
    everyone = arrived - arrived % size + size  # arrivals in total, once the last member is here
    rounds = 0
    while atomic_load(team, ARRIVED) < everyone:
        rounds += 1
        wait(rounds)
        if rounds == DELAY and not patient:
            atomic_add(team, DELAYED, 1)


@device
def wait(rounds):
    """Let some time pass, in round number `rounds` of waiting, from 1."""
    if rounds <= SPINS:
        pause()
    else:
        yield_core()


@device
def share_of(parts, rank, size):
    """The range of parts that a member does: about as many as the others, and the same ones each time, so that what it
    reads for them stays in its own cache."""
    return parts * rank // size, parts * (rank + 1) // size


@intrinsic
def atomic_add(typingctx, team, cell, value):
    """team[cell] += value, in one order for all threads; returns the value before."""

    def codegen(context, builder, signature, arguments):
        at = _address_of(context, builder, team, *arguments[:2])
        return builder.atomic_rmw("add", at, arguments[2], "seq_cst")

    return types.int64(team, types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, team, cell):
    """team[cell]; whatever its writer wrote before that can be read afterwards."""

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(_address_of(context, builder, team, *arguments), "acquire", 8)

    return types.int64(team, types.int64), codegen


def _address_of(context, builder, kind, team, cell):
    """The address of a cell of a team, which is an array or a view of one."""
    return builder.gep(cgutils.create_struct_proxy(kind)(context, builder, value=team).data, [cell])


@intrinsic
def pause(typingctx):
    """Tell the CPU that the thread is waiting in a loop."""

    def codegen(context, builder, signature, arguments):
        triple = llvm.get_process_triple()
        if triple.startswith(("x86_64", "i386", "i686")):
            name, hint = "llvm.x86.sse2.pause", []
        elif triple.startswith(("aarch64", "arm64")):
            name, hint = "llvm.aarch64.hint", [ir.Constant(I32, 1)]
        else:
            return context.get_dummy_value()
        function = ir.FunctionType(ir.VoidType(), [I32] * len(hint))
        builder.call(cgutils.get_or_insert_function(builder.module, function, name), hint)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typingctx):
    """Let another thread run on this core, if one is ready."""

    def codegen(context, builder, signature, arguments):
        function = ir.FunctionType(I32, [])
        builder.call(cgutils.get_or_insert_function(builder.module, function, YIELD), [])
        return context.get_dummy_value()

    return types.void(), codegen
