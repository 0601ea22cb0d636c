"""A statistic with its derivatives up to the second: `Derivatives`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Derivatives"]


@dataclass
class Derivatives:
    """The statistic at some parameters, and how it changes with them.

    Attributes
    ----------
    stat : float
    gradient : ndarray, shape (n,)
    expected : ndarray, shape (n, n)
        The Fisher information times 2: what the second derivatives are on average. Never negative,
        also where the statistic itself curves down.
    observed : ndarray, shape (n, n)
        The second derivatives for these very counts.
    """

    stat: float
    gradient: np.ndarray
    expected: np.ndarray
    observed: np.ndarray

    @classmethod
    def zero(cls, count: int) -> Derivatives:
        """Of nothing, by so many parameters."""
        return cls(0.0, np.zeros(count), np.zeros((count, count)), np.zeros((count, count)))

    def add(self, places: Sequence[int], expected: Any, observed: Any) -> None:
        """Add second derivatives by some parameters."""
        rows = np.array(places, dtype=int)
        self.expected[rows[:, None], rows] += expected
        self.observed[rows[:, None], rows] += observed

    def bend(self, one: int, other: int, value: float) -> None:
        """Add a second derivative of these counts by two parameters."""
        self.observed[one, other] += value
        if other != one:
            self.observed[other, one] += value

    def plus(self, other: Derivatives) -> Derivatives:
        """The sum of two statistics."""
        return Derivatives(
            self.stat + other.stat,
            self.gradient + other.gradient,
            self.expected + other.expected,
            self.observed + other.observed,
        )

    def of(self, places: np.ndarray | slice, units: np.ndarray) -> Derivatives:
        """By some of the parameters, in other units."""
        both = np.outer(units, units)
        square = (places, places) if isinstance(places, slice) else (places[:, None], places)
        return Derivatives(
            self.stat,
            self.gradient[places] * units,
            self.expected[square] * both,
            self.observed[square] * both,
        )

    def through(self, spread: np.ndarray) -> Derivatives:
        """By fewer parameters (m), which move these by the matrix ``spread`` (n, m)."""
        return Derivatives(
            self.stat,
            self.gradient @ spread,
            spread.T @ self.expected @ spread,
            spread.T @ self.observed @ spread,
        )
