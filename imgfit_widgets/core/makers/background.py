"""How the background expected from the responses is matched to the counts of a run.

`FoVBackground`
    One factor for the run, from all of its field of view.
`RingBackground`
    A factor for each pixel, from a ring around it.
`AdaptiveRingBackground`
    The same, with a ring that grows where exclusions leave too little of it.

Each has ``run(counts, background, valid, keep, scales)``, which answers with a `Matched`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ..irf.axis import FloatArray
from ..progress import Progress, silent

BoolArray = NDArray[np.bool_]


_NONE = 1e-6
"""Part of the counts that a background has to have to be scaled to them."""


@dataclass(frozen=True)
class Matched:
    """A run's background, matched to its counts.

    Parameters
    ----------
    background : ndarray, shape (R, y, x)
        Before ``norm``.
    mask : ndarray of bool, shape (R, y, x), or bool
        Where a background could be found.
    norm, norm_error : float
        A factor for the whole run, left to a background model where runs are not stacked.
    problem : str
        Why the run cannot be used; empty if it can.
    """

    background: FloatArray
    mask: BoolArray | bool = True
    norm: float = 1.0
    norm_error: float = 0.0
    problem: str = ""


class BackgroundMethod(Protocol):
    """What a background method offers."""

    scales_run: bool

    def run(
        self,
        counts: FloatArray,
        background: FloatArray,
        valid: BoolArray,
        keep: BoolArray,
        scales: tuple[float, float],
        progress: Progress = silent,
    ) -> Matched:
        """Match a background to counts, both of shape (R, y, x).

        ``valid`` (R, y, x) are the bins that are trusted, ``keep`` (y, x) the pixels that are not
        excluded, ``scales`` the size of a pixel along x and y in degrees; ``progress`` is called
        before each step and may raise `Cancelled`.
        """


@dataclass(frozen=True)
class FoVBackground:
    """Scales a run's background to its counts outside of the exclusions.

    The factor is the ratio of the sums, which also maximises the likelihood of a norm, so the
    methods ``scale`` and ``fit`` are one.

    Parameters
    ----------
    min_counts, min_npred_background : float
        A run with no more than these is not used.
    """

    min_counts: float = 0.0
    min_npred_background: float = 0.0
    scales_run = True

    def run(
        self,
        counts: FloatArray,
        background: FloatArray,
        valid: BoolArray,
        keep: BoolArray,
        scales: tuple[float, float],
        progress: Progress = silent,
    ) -> Matched:
        """See `BackgroundMethod`."""
        used = valid & keep
        n_counts, n_background = float(counts[used].sum()), float(background[used].sum())
        outside = "" if keep.all() else " outside of the exclusions"
        # Next to nothing is what a table without a rate leaves between its nodes.
        if n_background <= max(self.min_npred_background, _NONE * n_counts):
            limit = (
                f"at least {self.min_npred_background:g}" if self.min_npred_background else "any"
            )
            problem = f"{n_background:.3g} background counts{outside}, expected {limit}"
        elif n_counts <= self.min_counts:
            problem = f"{n_counts:.0f} counts{outside}, expected more than {self.min_counts:g}"
        else:
            norm, error = n_counts / n_background, np.sqrt(n_counts) / n_background
            return Matched(background, norm=norm, norm_error=float(error))
        return Matched(background, problem=f"{problem}, so its background cannot be scaled")


@dataclass(frozen=True)
class RingBackground:
    """Scales the background of each pixel to the counts in a ring around it.

    Berge, Funk & Hinton 2007, A&A 466, 1219, with the background of the responses as acceptance.

    Parameters
    ----------
    r_in, width : float
        Inner radius and width of the ring, degrees.
    inside_only : bool
        Take only trusted bins into the ring (exact), or all that the run has (as Gammapy does).
    """

    r_in: float
    width: float
    inside_only: bool = True
    scales_run = False

    def run(
        self,
        counts: FloatArray,
        background: FloatArray,
        valid: BoolArray,
        keep: BoolArray,
        scales: tuple[float, float],
        progress: Progress = silent,
    ) -> Matched:
        """See `BackgroundMethod`."""
        used = keep & valid if self.inside_only else np.broadcast_to(keep, counts.shape)
        ring = ring_kernel(self.r_in, self.width, scales)
        sums = []
        for number, values in enumerate((counts, background)):
            progress(number / 2, "sums over rings")
            sums.append(_Sums(values * used, ring.shape).over(ring))
        return _scaled(background, np.rint(sums[0]), sums[1])


@dataclass(frozen=True)
class AdaptiveRingBackground:
    """A ring that grows, pixel by pixel, until it holds enough acceptance.

    Parameters
    ----------
    r_in, width, r_out_max, stepsize : float
        Degrees; the ring grows by ``stepsize`` up to ``r_out_max``.
    threshold_alpha : float
        Largest ratio of on to off acceptance.
    theta : float
        Radius in degrees over which the on acceptance is summed for that ratio; 0 for one pixel,
        which is what Gammapy's unit mistake comes to.
    fixed_width : bool
        Whether the ring moves outwards, or only its outer radius does.
    inside_only : bool
        As for `RingBackground`.
    """

    r_in: float
    width: float
    r_out_max: float
    stepsize: float = 0.02
    threshold_alpha: float = 0.1
    theta: float = 0.22
    fixed_width: bool = True
    inside_only: bool = True
    scales_run = False

    def run(
        self,
        counts: FloatArray,
        background: FloatArray,
        valid: BoolArray,
        keep: BoolArray,
        scales: tuple[float, float],
        progress: Progress = silent,
    ) -> Matched:
        """See `BackgroundMethod`."""
        used = keep & valid if self.inside_only else np.broadcast_to(keep, counts.shape)
        rings = self._rings()
        widest = ring_kernel(0.0, max(r_in + width for r_in, width in rings), scales).shape
        on = background
        if self.theta:
            disk = ring_kernel(0.0, self.theta, scales)
            progress(0.0, "sums over rings")
            on = _Sums(background, disk.shape).over(disk)
        progress(0.1, "sums over rings")
        counts_around = _Sums(counts * used, widest)
        progress(0.2, "sums over rings")
        background_around = _Sums(background * used, widest)
        off, acceptance_off = np.zeros_like(counts), np.zeros_like(background)
        open_ = np.ones(counts.shape, dtype=bool)
        for number, (r_in, width) in enumerate(rings):
            progress(0.3 + 0.7 * number / len(rings), "sums over rings")
            ring = ring_kernel(r_in, width, scales)
            acceptance = background_around.over(ring)
            enough = open_ & _some(acceptance) & (on <= self.threshold_alpha * acceptance)
            if enough.any():
                progress(0.3 + 0.7 * (number + 0.5) / len(rings), "sums over rings")
                off[enough] = np.rint(counts_around.over(ring))[enough]
                acceptance_off[enough] = acceptance[enough]
                open_ &= ~enough
            if not open_.any():
                break
        return _scaled(background, off, acceptance_off)

    def _rings(self) -> list[tuple[float, float]]:
        """Inner radius and width of each ring that is tried, in order."""
        start = self.r_in if self.fixed_width else self.width
        stop = self.r_out_max - (self.width if self.fixed_width else self.r_in)
        steps = np.arange(start, max(stop, start + 1e-9), self.stepsize)
        return [(s, self.width) if self.fixed_width else (self.r_in, s) for s in steps.tolist()]


def ring_kernel(r_in: float, width: float, scales: tuple[float, float]) -> FloatArray:
    """Pixels (1 or 0) whose centre lies in a ring, for pixels of a size (x, y) in degrees."""
    # A centre on the edge is inside, whatever rounding makes of the pixel size.
    low, high = r_in * (1 - 1e-7), (r_in + width) * (1 + 1e-7)
    half = [int(high / scale) for scale in scales]
    x = np.arange(-half[0], half[0] + 1) * scales[0]
    y = np.arange(-half[1], half[1] + 1) * scales[1]
    distance = np.hypot(x, y[:, None])
    return np.asarray((distance >= low) & (distance <= high), dtype=float)


class _Sums:
    """Sums over the pixels of kernels around each pixel, 0 beyond the map.

    Parameters
    ----------
    values : ndarray, shape (R, y, x)
    reach : (int, int)
        Shape of the largest kernel.
    """

    def __init__(self, values: FloatArray, reach: tuple[int, ...]) -> None:
        self._shape = values.shape[1:]
        self._padded = [
            fft.next_fast_len(n + k - 1, real=True) for n, k in zip(self._shape, reach, strict=True)
        ]
        self._transform = fft.rfft2(values, self._padded)
        self._most = values.max(axis=(1, 2), initial=0.0)[:, None, None]

    def over(self, kernel: FloatArray) -> FloatArray:
        """For a kernel (odd, symmetric) the sums, shape (R, y, x)."""
        product = self._transform * fft.rfft2(kernel, self._padded)
        rows, columns = (
            slice(k // 2, k // 2 + n) for n, k in zip(self._shape, kernel.shape, strict=True)
        )
        found = fft.irfft2(product, self._padded)[:, rows, columns]
        # What the transform leaves of nothing, as where all of a ring lies beyond the map.
        return np.where(np.abs(found) > 1e-12 * self._most * kernel.sum(), found, 0.0)


def _scaled(background: FloatArray, off: FloatArray, acceptance_off: FloatArray) -> Matched:
    found = _some(acceptance_off)
    factor = np.divide(off, acceptance_off, out=np.zeros_like(off), where=found)
    return Matched(background * factor, found)


def _some(acceptance: FloatArray) -> BoolArray:
    """Where there is enough to divide by."""
    return np.asarray(acceptance > 1e-9 * max(float(acceptance.max(initial=0.0)), 1e-300))
