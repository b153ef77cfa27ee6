"""Random numbers as a pure function of where they are used.

A generator with state must be saved and restored, and drawn from in one order. Here there is no state. A *key* is
computed from (seed, purpose, step, layer, ...), and each number is a hash of its key and its index. So a resumed run
draws the same numbers as an uninterrupted one, both backends drop the same elements, threads need no common order, and
no dropout mask is stored: the backward pass computes the same numbers again.

Sources: counter-based generators, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the 64-bit mixer
is SplitMix64's, Steele et al. 2014, "Fast splittable pseudorandom number generators"; the 32-bit multipliers come from
C. Wellons' search for low-bias integer hashes (hash-prospector).
"""

from __future__ import annotations

MASK64 = (1 << 64) - 1
GOLDEN64 = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads consecutive counters over all 64 bits
GOLDEN32 = 0x9E3779B9
MIX32_A = 0x21F0AAAD
MIX32_B = 0xD35A2D97

# What a stream is for. The values determine the results of a run: append, never renumber.
PURPOSES = {
    "weights": 1,
    "batches": 2,
    "embedding dropout": 3,
    "attention dropout": 4,
    "attention residual dropout": 5,
    "mlp residual dropout": 6,
    "sampling": 7,
}


def mix64(x: int) -> int:
    """Hash a 64-bit integer: flipping one bit of x flips each bit of the result with probability 1/2."""
    x &= MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def stream_key(seed: int, purpose: str, *indices: int) -> int:
    """Return the key of the stream for `purpose` at `indices` (step, layer, ...), in [0, 2^64)."""
    key = mix64(seed)
    for part in (PURPOSES[purpose], *indices):
        key = mix64(key + GOLDEN64 + part)
    return key


def uniform(key: int, index: int) -> float:
    """Return number `index` of stream `key`, uniform in [0, 1), with 53 random bits."""
    return (mix64(key + GOLDEN64 * (index + 1)) >> 11) / (1 << 53)


def from_row(key: int, row: int) -> int:
    """Return the key of the dropout mask that begins at row `row` of the mask of `key`."""
    return (key + GOLDEN64 * row) & MASK64


def keep_threshold(rate: float) -> int:
    """Return the least 32 random bits with which dropout keeps an element: P(keep) = 1 - rate, to within 2^-32.

    Raises ValueError if the rate is not in [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"the dropout rate is {rate}; wanted 0 <= rate < 1")
    return min(round(rate * (1 << 32)), (1 << 32) - 1)
