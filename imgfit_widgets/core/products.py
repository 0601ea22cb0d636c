"""Matrix products in pieces that BLAS does not hand to threads.

For matrices of the size that a fit meets, waking threads costs more than they save, and far more on
a busy machine. And the last bit of what threads share depends on how many there are, which workers
of a reduction must not show.
"""

from __future__ import annotations

import numpy as np

__all__ = ["gram", "product"]

_PIECE = 200_000
"""Multiplications of one piece; OpenBLAS begins to use threads above 262144."""


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right``, quick if one of them is small.

    Shapes (n, k) and (k, m), of each one or several.
    """
    if left.shape[-2] * right.shape[-2] * right.shape[-1] <= _PIECE:
        return np.asarray(left @ right)
    if left.ndim > 2 or right.ndim > 2:
        count = max(len(a) for a in (left, right) if a.ndim > 2)
        left, right = (np.broadcast_to(a, (count, *a.shape[-2:])) for a in (left, right))
        return np.stack([product(a, b) for a, b in zip(left, right, strict=True)])
    if left.size < right.size:
        found = np.empty((len(left), right.shape[1]))
        step = max(1, _PIECE // left.size)
        for start in range(0, right.shape[1], step):
            found[:, start : start + step] = left @ right[:, start : start + step]
        return found
    rows = max(1, _PIECE // right.size)
    count = -(-len(left) // rows)
    padded = np.zeros((count * rows, left.shape[1]))
    padded[: len(left)] = left
    found = padded.reshape(count, rows, -1) @ right
    return np.asarray(found.reshape(count * rows, -1)[: len(left)])


def gram(vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``(vectors * weight) @ vectors.T`` of vectors (k, n): shape (k, k)."""
    count = len(vectors)
    found = np.zeros((count, count))
    step = max(1, _PIECE // max(count * count, 1))
    for start in range(0, vectors.shape[1], step):
        some = vectors[:, start : start + step]
        found += (some * weight[start : start + step]) @ some.T
    return found
