"""Benchmarks of every kernel and of the whole step, with pytest-benchmark.

    pytest bench/                                                     # measure both backends, side by side
    pytest bench/ -k attention --benchmark-json=before.json           # then use --benchmark-compare, as usual
    pytest bench/ --benchmark-disable                                 # only check that they run

A group is an operation at one size. `extra_info` holds GFLOP/s, GB/s and the fraction of the peak, computed from the
median as `bevia_fast.measuring.stopwatch` defines them. The peak is measured once, after the first benchmark of the
session, and competitors do not take turns. For figures to publish, use `bevia-fast bench`.
"""

from __future__ import annotations

import os

# Let NumPy's library run at its best, as in `bevia-fast bench`; it reads these variables when NumPy is imported.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)
