"""What Muon's kernels share: where its matrices lie, and the polynomials that make a matrix orthogonal."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Each step maps every singular value s of X to a s + b s^3 + c s^5. The coefficients are those of Jordan et al. 2024
# (kellerjordan.github.io/posts/muon), chosen for a steep slope at 0: after five steps, values from 0.002 to 1 are
# between 0.68 and 1.21. They never reach 1 exactly, which does not matter for training. The authors' own program
# (github.com/KellerJordan/Muon, muon.py) and torch.optim.Muon have the same coefficients and as many steps.
COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5
RESTART = 2  # the steps after which X is computed, if the steps go on with X X^T only; see `numba_jit.muon`
MUON_EPS = 1e-7  # the least norm that is divided by, so that a gradient of 0 stays 0


class MatrixAt(NamedTuple):
    """Where a matrix lies in a flat array: its element (i, j) is number start + i stride + j."""

    start: int
    rows: int
    columns: int
    stride: int

    def of(self, array: Array) -> Array:
        """Return a view of the matrix in a flat array."""
        itemsize = array.itemsize
        return np.lib.stride_tricks.as_strided(
            array[self.start :], (self.rows, self.columns), (self.stride * itemsize, itemsize)
        )

    @property
    def scale(self) -> float:
        """What an orthogonal update is multiplied with: a matrix with more outputs than inputs takes larger steps.

        With all singular values 1, an update of unit inputs has outputs whose root mean square is sqrt(rows/columns);
        with this scale it is 1 whatever the shape, or less if there are fewer outputs than inputs. It is that of Jordan
        et al. 2024 and of torch.optim.Muon ("original"), whose matrices are output x input.
        """
        return float(max(1.0, self.columns / self.rows) ** 0.5)
