"""pytest-benchmark for every kernel and for the whole step.

    pytest bench/                                                     # measure, both backends beside each other
    pytest bench/ -k attention --benchmark-json=before.json           # then --benchmark-compare, as usual
    pytest bench/ --benchmark-disable                                 # only see that they run

A group is an operation at a size. `extra_info` has GFLOP/s, GB/s, and the fraction of the peak, computed from the
median, as `bevia_fast.measuring.stopwatch` says. The peak is probed once, after the first benchmark of the session, and
competitors do not take turns: for figures to be quoted use `bevia-fast bench`.
"""

from __future__ import annotations

import os

# The best that NumPy's library can do here, as in `bevia-fast bench`; it reads these when NumPy is loaded.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)
