"""Threads that work on one thing in turns, with barriers between: for work far too short to start threads for anew.

A parallel loop of as many items as threads makes the team: each item calls `join`. Whether the items really run at the
same time is up to the threading layer and to the machine, so that is not taken for granted: the first to come waits a
little for the others and then closes the team. Who comes later has nothing to do. So the loop is right also where its
items run one after the other, and no member of a team ever waits for a thread that does not run yet.

A member that loses its core to another program holds up the others. They yield theirs while they wait, and it is noted,
for the first member to dismiss the rest when it comes to a convenient place.

MESSAGE is a word for the members' own use. `team` is an array of TEAM_SIZE int64, 0 in the beginning.
"""

from __future__ import annotations

import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import device

I32 = ir.IntType(32)
LINE = 16  # int64 in two cache lines, which some CPUs fetch together: so each cell is alone
JOINED, MEMBERS, ARRIVED, DELAYED, MESSAGE = (cell * LINE for cell in range(5))
TEAM_SIZE = 5 * LINE
CLOSED = 1 << 32  # added to the number that have joined
# Rounds of waiting: of about 15 ns up to SPINS; from then on the core is offered to others, and if one wants it, it may
# be gone for milliseconds each time.
SPINS = 20_000
PATIENCE = 10_000  # for the others to join: a sleeping thread takes about 50 us to wake up
DELAY = SPINS + 5  # after which a member is taken to have lost its core

YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


@device
def join(team, wanted):
    """The caller's number in the team, from 0, or -1 if it comes too late; `wanted` members are hoped for."""
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
    """How many have joined."""
    return atomic_load(team, MEMBERS)


@device
def barrier(team, size, patient=False):
    """Wait until all `size` members are here; what they wrote before can be read behind it.

    A long wait is noted in DELAYED; not if `patient`, where one member has something to do that takes its time."""
    if size == 1:
        return
    arrived = atomic_add(team, ARRIVED, 1)
    everyone = arrived - arrived % size + size  # that many arrivals in all, when the last of this time is here
    rounds = 0
    while atomic_load(team, ARRIVED) < everyone:
        rounds += 1
        wait(rounds)
        if rounds == DELAY and not patient:
            atomic_add(team, DELAYED, 1)


@device
def wait(rounds):
    """Let some time pass, in round number `rounds` of waiting, counted from 1."""
    if rounds <= SPINS:
        pause()
    else:
        yield_core()


@device
def share_of(parts, rank, size):
    """First and last of the parts that a member does: about as many as the others, and always the same ones, so that
    what it reads for them stays in its own cache."""
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
    """Tell the CPU that this is a loop that waits."""

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
    """Let another thread run on this core, if one wants to."""

    def codegen(context, builder, signature, arguments):
        function = ir.FunctionType(I32, [])
        builder.call(cgutils.get_or_insert_function(builder.module, function, YIELD), [])
        return context.get_dummy_value()

    return types.void(), codegen
