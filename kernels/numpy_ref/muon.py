"""Muon: momentum, orthogonalized by Newton-Schulz iterations (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

Why orthogonalize? The gradient of a weight matrix is a sum of outer products, one for each token: what came in times
what went wrong. Few directions are in nearly all of them, so that a handful of singular values dwarf the others, and
a step along the gradient changes the weights in these directions only. With the singular values set to 1, a step
changes all directions alike, the rare ones too. It is also the steepest descent where the size of a step is measured
by the most that it can change the output of the layer (the spectral norm), rather than by its elements.

AdamW does the same for single numbers: it divides each element by its usual size. Muon does it for a matrix as a whole.

Momentum, Nesterov's form, the order of decay and update, and the scale by shape are those of the authors' program
(github.com/KellerJordan/Muon, muon.py, `muon_update`) and of torch.optim.Muon. There, the products are in bfloat16;
here, they are in the dtype of the weights. Both programs leave it to the caller to part queries, keys and values.
"""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import Array, MatrixAt, check_matrices, implements
from ..newton_schulz import COEFFICIENTS, MUON_EPS


@implements(contract.muon)
def muon(
    parameters: Array, gradients: Array, momentum: Array,
    *, matrices: tuple[MatrixAt, ...], learning_rate: float, beta: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    # (P,), (P,), (P,), all updated in place
    check_matrices(matrices, parameters.size)
    for matrix in matrices:
        W, G, M = matrix.of(parameters), matrix.of(gradients), matrix.of(momentum)
        g = G * gradient_scale

        # An exponential moving average of the gradient. Its size does not matter, so it needs no bias correction.
        M[...] = beta * M + (1 - beta) * g

        # Nesterov: the average that the next step would have if its gradient were this one again
        update = matrix.scale * orthogonalized(beta * M + (1 - beta) * g)
        W -= learning_rate * (update + weight_decay * W)

        G[...] = 0  # ready for the next backward pass, which adds to them


def orthogonalized(u: Array) -> Array:
    """Return u with singular values of about 1, or 0 where those of u are.

    With u = U S V^T, X X^T is U S^2 U^T, so that a X + b (X X^T) X + c (X X^T)^2 X = U (a S + b S^3 + c S^5) V^T: the
    polynomial reaches the singular values although nobody computes them. Products are all it takes.
    """
    norm = np.sqrt(np.square(u, dtype=np.float64).sum())
    X = np.divide(u, np.maximum(norm, MUON_EPS), dtype=np.float64).astype(u.dtype)  # no singular value is above 1

    if len(X) > len(X.T):  # X X^T should be the smaller of X X^T and X^T X
        return orthogonalized_wide(X.T).T
    return orthogonalized_wide(X)


def orthogonalized_wide(X: Array) -> Array:
    # (n, m), n <= m
    for a, b, c in COEFFICIENTS:
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X
