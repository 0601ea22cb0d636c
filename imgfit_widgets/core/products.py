"""Matrix products in pieces that BLAS does not hand to threads.

For matrices of the size that a fit meets, waking threads costs more than they save, and far more on
a busy machine. And the last bit of what threads share depends on how many there are, which workers
of a reduction must not show.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["gram", "product"]

_PIECE = 200_000
"""Multiplications of one piece; OpenBLAS begins to use threads above 262144."""
_DEEP, _SIDE = 64, 24
"""From so many terms of each sum on, squares of such a side are quicker than whole rows."""


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
    side = min(math.isqrt(_PIECE // left.shape[1]), _SIDE)
    if left.shape[1] >= _DEEP and min(len(left), right.shape[1]) > 2 * side >= _SIDE:
        return _in_squares(left, right, side)
    if left.size < right.size:
        found = np.empty((len(left), right.shape[1]), np.result_type(left, right))
        step = max(1, _PIECE // left.size)
        for start in range(0, right.shape[1], step):
            found[:, start : start + step] = left @ right[:, start : start + step]
        return found
    rows = max(1, _PIECE // right.size)
    count = -(-len(left) // rows)
    padded = np.zeros((count * rows, left.shape[1]), left.dtype)
    padded[: len(left)] = left
    found = padded.reshape(count, rows, -1) @ right
    return np.asarray(found.reshape(count * rows, -1)[: len(left)])


def _in_squares(left: np.ndarray, right: np.ndarray, side: int) -> np.ndarray:
    """The same in square pieces of the product, which use the caches best."""
    rows, columns = (-(-n // side) for n in (len(left), right.shape[1]))
    one = np.zeros((rows * side, left.shape[1]), left.dtype)
    one[: len(left)] = left
    other = np.zeros((len(right), columns * side), right.dtype)
    other[:, : right.shape[1]] = right
    found = np.empty((rows * side, columns * side), np.result_type(left, right))
    np.matmul(
        one.reshape(rows, 1, side, -1),
        other.reshape(-1, columns, side).transpose(1, 0, 2),
        out=found.reshape(rows, side, columns, side).transpose(0, 2, 1, 3),
    )
    return found[: len(left), : right.shape[1]]


def gram(vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``(vectors * weight) @ vectors.T`` of vectors (k, n): shape (k, k)."""
    count = len(vectors)
    found = np.zeros((count, count))
    step = max(1, _PIECE // max(count * count, 1))
    for start in range(0, vectors.shape[1], step):
        some = vectors[:, start : start + step]
        found += (some * weight[start : start + step]) @ some.T
    return found
