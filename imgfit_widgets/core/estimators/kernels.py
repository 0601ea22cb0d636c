"""The image of a source at every pixel centre of a dataset, as mixtures over Gaussian widths.

The PSF is a mixture of Gaussians, so the image of a source at pixel i is ``sum_w c[i, w] B_w``: the
weights c follow exposure, PSF and energy dispersion at i exactly, and B_w is a Gaussian integrated
over pixels, which varies only with the projection. This is what `Evaluator` predicts for a source
there (with the exposure of its centre), but for a whole map at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import erfc

from ..dataset import MapDataset
from ..errors import DataError, InputError, ModelError
from ..models import GaussianSpatialModel, PointSpatialModel, SkyModel
from ..pixels import PixelIntegrals, few_images
from ..products import product
from ..response import PixelPosition
from .bands import Interpolation, ReferenceCounts

FloatArray = NDArray[np.float64]

__all__ = ["SourceImages", "Stamps", "reach_of", "source_size"]

_PSF = 3e-5
"""To what part of its largest weight the PSF is taken at each pixel."""
_NEGLIGIBLE = 1e-7
"""Widths whose share of the mixture stays below this everywhere are left out."""


def source_size(model: SkyModel) -> float:
    """Standard deviation of a source in degrees, 0 for a point.

    Raises
    ------
    ModelError
        For a shape that is neither a point nor a round Gaussian.
    """
    spatial = model.spatial_model
    if isinstance(spatial, PointSpatialModel):
        return 0.0
    if isinstance(spatial, GaussianSpatialModel) and spatial.e.value == 0:
        sigma = float(spatial.sigma.value * spatial.sigma.factor_to_expected)
        if sigma >= 0 and np.isfinite(sigma):
            return sigma
    raise ModelError(
        f"{model.name}: {type(spatial).__name__} cannot be the shape of a TS map; expected a "
        "point or a round Gaussian"
    )


@dataclass(frozen=True)
class SourceImages:
    """Mixture weights of a source at some pixels of a dataset.

    ``reference`` is of those pixels; ``nodes`` (pixels, N) turns ``psf`` (N, k) on N nodes into few
    values at the pixels, whose PSF weights are ``mixing`` (T, W, k) times these.
    """

    widths: FloatArray
    reference: ReferenceCounts
    nodes: csr_matrix
    psf: FloatArray
    mixing: FloatArray
    bins: slice

    @classmethod
    def of(cls, dataset: MapDataset, model: SkyModel, bins: slice) -> SourceImages:
        """Prepare all pixels of a dataset for some of its energy bins.

        Raises
        ------
        DataError
            If the dataset lacks exposure, energy dispersion or PSF.
        """
        if dataset.psf is None:
            raise DataError(f"dataset {dataset.name!r}: has no psf, which a source needs")
        weights = np.nan_to_num(np.asarray(dataset.psf.weights, dtype=float))
        flat = weights.reshape(*weights.shape[:2], -1)
        used = np.abs(flat).max(axis=(0, 2)) > _NEGLIGIBLE
        if not used.any():
            raise DataError(f"dataset {dataset.name!r}: its psf is empty")
        edisp = dataset.edisp
        interpolation = Interpolation.of(dataset.geom, edisp.geom) if edisp is not None else None
        reference = ReferenceCounts.of(dataset, model.spectral_model, interpolation)
        flat = flat[:, used]
        valid = flat.any(axis=(0, 1)).reshape(weights.shape[2:])
        if interpolation is None or edisp is None or not edisp.geom.is_aligned(dataset.psf.geom):
            interpolation = Interpolation.of(dataset.geom, dataset.psf.geom)
        mixing, few = few_images(flat.reshape(-1, 1, flat.shape[2]), _PSF)
        return cls(
            np.hypot(np.asarray(dataset.psf.widths, dtype=float)[used], source_size(model)),
            reference,
            interpolation.matrix(valid),
            np.ascontiguousarray(few[:, 0].T),
            mixing.reshape(*flat.shape[:2], -1),
            bins,
        )

    def at(self, pixels: Any) -> SourceImages:
        """The same for some of the pixels."""
        reference = replace(
            self.reference,
            exposure=self.reference.exposure[:, pixels],
            edisp=self.reference.edisp[:, pixels],
        )
        return replace(self, reference=reference, nodes=self.nodes[pixels])

    def trimmed(self) -> SourceImages:
        """The same with only the nodes that the pixels need."""
        used = np.zeros(self.nodes.shape[1], dtype=bool)
        used[self.nodes.indices] = True
        place = (np.cumsum(used) - 1)[self.nodes.indices]
        shape = (self.nodes.shape[0], int(np.count_nonzero(used)))
        nodes = csr_matrix((self.nodes.data, place, self.nodes.indptr), shape)
        return replace(self, nodes=nodes, psf=self.psf[used])

    def mixtures(self) -> FloatArray:
        """Counts in each width at the reference amplitude, shape (bins, pixels, W)."""
        ref = self.reference
        n_energy, n_widths, n_few = self.mixing.shape
        # In single precision, at half the time.
        few, mixing = (a.astype(np.float32) for a in (self.nodes @ self.psf, self.mixing))
        psf = product(few, mixing.reshape(-1, n_few).T).reshape(-1, n_energy, n_widths)
        exposure = (ref.mixing_exposure * ref.flux[:, None]) @ ref.exposure  # (T, pixels)
        spread = np.tensordot(ref.mixing_edisp[:, self.bins], ref.edisp, axes=1)
        by_bin = spread * exposure[:, None, :]  # (T, bins, pixels)
        scale = np.abs(by_bin).max(initial=1e-300)  # counts may be far beyond single precision
        found = np.matmul((by_bin / scale).astype(np.float32).transpose(2, 1, 0), psf)
        return np.asarray(found.transpose(1, 0, 2).astype(float) * scale)


@dataclass(frozen=True)
class Stamps:
    """Gaussians at the centre of a pixel, integrated over the pixels around it.

    Attributes
    ----------
    factors : list of (ndarray, ndarray)
        Rows (W, 2 half_y + 1) and columns (W, 2 half_x + 1), whose products add up to `images`:
        one pair, and one for the skew of the projection if there is any.
    images : ndarray, shape (W, 2 half_y + 1, 2 half_x + 1)
    """

    factors: list[tuple[FloatArray, FloatArray]]
    images: FloatArray

    @classmethod
    def at(
        cls, widths: FloatArray, position: PixelPosition, x: float, y: float, half: tuple[int, int]
    ) -> Stamps:
        """For widths (W,) in degrees, at a pixel position; ``half`` pixels along y and x."""
        metric = position.metric(x, y)[0]
        scale_x, scale_y = math.sqrt(metric[0]), math.sqrt(metric[2])
        rho = float(metric[1] / (scale_x * scale_y))
        along_y, along_x = (
            PixelIntegrals(np.arange(-h, h + 2) - 0.5, 0.0, widths * scale)
            for h, scale in zip(half, (scale_y, scale_x), strict=True)
        )
        factors = [(along_y.value, along_x.value)]
        if abs(rho) > 1e-9:
            factors.append((rho * along_y.terms(2)[:, 1], along_x.terms(2)[:, 1]))
        images = sum(rows[:, :, None] * columns[:, None, :] for rows, columns in factors)
        return cls(factors, np.asarray(images))

    def whole(self) -> FloatArray:
        """Sum of each Gaussian, shape (W,)."""
        return np.asarray(
            sum(rows.sum(axis=1) * columns.sum(axis=1) for rows, columns in self.factors)
        )

    def sums(self, image: FloatArray) -> FloatArray:
        """Sum of an image under each Gaussian: (ny + 2 half_y, nx + 2 half_x) to (ny, nx, W)."""
        found: Any = 0.0
        for rows, columns in self.factors:
            down, across = (
                _sliding(factor, length)
                for factor, length in zip((rows, columns), image.shape, strict=True)
            )
            found = found + (down @ image) @ across.transpose(0, 2, 1)
        return np.asarray(found.transpose(1, 2, 0))


def _sliding(factor: FloatArray, length: int) -> FloatArray:
    """What sums under each row of ``factor`` (W, d) as it slides: (W, length - d + 1, length)."""
    widths, width = factor.shape
    count = length - width + 1
    found = np.zeros((widths, count * (length + 1)))
    # One row further down is one place further right.
    found.reshape(widths, count, length + 1)[:, :, :width] = factor[:, None]
    return found[:, : count * length].reshape(widths, count, length)


def reach_of(mixture: FloatArray, widths: FloatArray, share: float) -> float:
    """Distance in degrees beyond which, along one axis, less than a share of a mixture lies."""
    if not 0 < share < 1:
        raise InputError(f"reach: {share!r} is no share; expected between 0 and 1")
    total = abs(float(mixture.sum()))
    if not total > 0:
        return float(widths.max())
    distance = np.linspace(0.0, 5.0 * float(widths.max()), 400)
    tail = np.abs(erfc(distance[:, None] / (math.sqrt(2.0) * widths)) @ mixture) / total
    beyond = np.flatnonzero(tail > share)
    return float(distance[min(beyond[-1] + 1, len(distance) - 1)]) if len(beyond) else 0.0
