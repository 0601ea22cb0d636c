"""Whether a source's position or size changes with energy: bands fitted alone, and together.

`fit_bands`
    One fit in each energy band.
`EnergyDependentMorphologyEstimator`
    Against the same bands with one common position and size.

Twice the gain in log likelihood of the bands' own shapes over a common one follows, if the shape
is common, a chi-square with as many degrees of freedom as shapes have more parameters (Wilks 1938,
Ann. Math. Stat. 9, 60; for gamma rays Feijen et al. 2025, A&A 701, A4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from ..dataset import Datasets, MapDataset
from ..errors import ImgfitError, InputError
from ..fit import Fit, FitResult
from ..models import Models
from ..progress import Progress, part, silent
from ..stats import sigma_of
from .bands import energy_bands
from .common_shape import CommonFit, CommonShape, fit_common
from .slices import band_models, slice_by_energy

FloatArray = NDArray[np.float64]

__all__ = ["BandFit", "EnergyDependence", "EnergyDependentMorphologyEstimator", "fit_bands"]

_COMPACT = 0.02
"""A size in degrees to start from besides the user's, so that no compact source is missed."""
_BETTER = 1e-3
"""A start has to lower the statistic by this much to be taken."""


@dataclass(frozen=True, eq=False)
class BandFit:
    """A source in one energy band.

    ``values`` and ``errors`` are by parameter name, in the parameters' units: the amplitude first,
    then what of position and size is free. ``flux`` (cm-2 s-1) is that within the band. ``ts`` is
    what the source gains over the background alone, with ``dof`` parameters. A fit that failed has
    ``success`` false, says why in ``message``, and its numbers are where it stopped (NaN where it
    came to no numbers at all).
    """

    energy_min: float
    energy_max: float
    success: bool
    message: str
    stat: float
    values: dict[str, float]
    errors: dict[str, float]
    flux: float
    flux_err: float
    ts: float
    dof: int
    significance: float
    result: FitResult | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers that there are not are None."""
        row = {k: v for k, v in vars(self).items() if k != "result"}
        for key in ("values", "errors"):
            row[key] = {k: _plain(v) for k, v in row[key].items()}
        return {k: _plain(v) for k, v in row.items()}


@dataclass(frozen=True, eq=False)
class EnergyDependence:
    """The outcome of the comparison.

    Attributes
    ----------
    source : str
    bands : tuple of `BandFit`
        Each band with a position and size of its own (hypothesis H1).
    common : `CommonFit`
        All bands with one position and size (H0); amplitudes and norms are each band's own.
    delta_ts : float
        Statistic of H0 minus that of H1; NaN if a fit failed.
    dof : int
    significance : float
        Two-sided equivalent sigmas of ``delta_ts``.
    success : bool
    message : str
        In words.
    """

    source: str
    bands: tuple[BandFit, ...]
    common: CommonFit
    delta_ts: float
    dof: int
    significance: float
    success: bool
    message: str

    def to_table(self) -> Table:
        """One row for H0 and one for each band: energies (TeV), parameters, TS and fluxes."""
        low, high = self.bands[0].energy_min, self.bands[-1].energy_max
        rows: list[dict[str, Any]] = [
            {"hypothesis": "H0", "energy_min": low, "energy_max": high, "stat": self.common.stat}
        ]
        rows[0] |= _columns(self.common.values, self.common.errors)
        rows[0] |= {"success": self.common.success, "message": self.common.message}
        for band in self.bands:
            row = {"hypothesis": "H1", "energy_min": band.energy_min, "energy_max": band.energy_max}
            row |= _columns(band.values, band.errors)
            for key in ("stat", "flux", "flux_err", "ts", "dof", "significance", "success"):
                row[key] = getattr(band, key)
            rows.append({**row, "message": band.message})
        names = list(dict.fromkeys(key for row in rows for key in row))
        table = Table()
        for name in names:
            missing = 0 if name == "dof" else np.nan
            table[name] = np.array([row.get(name, missing) for row in rows])
        for name in table.colnames:
            if name.startswith("energy"):
                table[name].unit = "TeV"
            elif name.startswith("flux"):
                table[name].unit = "cm-2 s-1"
        return table

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "delta_ts": _plain(self.delta_ts),
            "dof": self.dof,
            "significance": _plain(self.significance),
            "success": self.success,
            "message": self.message,
            "common": self.common.to_dict(),
            "bands": [band.to_dict() for band in self.bands],
        }

    def __str__(self) -> str:
        lines = [f"Energy-dependent morphology of {self.source}", "", f"  {self.message}", ""]
        lines.append(f"  All bands        : {_shape(self.common.values, self.common.errors)}")
        for band in self.bands:
            title = f"{band.energy_min:.3g}-{band.energy_max:.3g} TeV"
            shape = _shape(
                {k: v for k, v in band.values.items() if k in self.common.values}, band.errors
            )
            note = "" if band.success else f" FAILED: {band.message}"
            lines.append(
                f"  {title:<17}: {shape}, flux {band.flux:.2e} +/- {band.flux_err:.1e} cm-2 s-1, "
                f"{band.significance:.1f} sigma{note}"
            )
        return "\n".join(lines) + "\n"


def fit_bands(
    datasets: MapDataset | Sequence[MapDataset],
    models: Models | None = None,
    source: str | None = None,
    energy_edges: Any = None,
    fit: Fit | None = None,
    progress: Progress = silent,
) -> tuple[BandFit, ...]:
    """Fit a source in each energy band by itself.

    Parameters
    ----------
    datasets : `MapDataset` or sequence of them
    models : `Models`, optional
        Those of the datasets by default. Not changed.
    source : str, optional
        The first source by default; see `band_models` for what is free.
    energy_edges : sequence of energies, optional
        By default each energy bin is a band.
    fit : `Fit`, optional
    progress : Progress
        May raise `Cancelled`.

    Raises
    ------
    InputError, ModelError, DataError
        If the edges, the source or the datasets do not fit together. A band whose fit fails is no
        error: it comes back with its reason.
    """
    task = _Bands(datasets, models, source, energy_edges, fit)
    return task.alone(progress)


class EnergyDependentMorphologyEstimator:
    """Compares bands with their own position and size to bands with common ones.

    An extended source amid others has several minima, so each hypothesis is started from the user's
    shape, from a compact one and from where every band's fit ended, and its lowest minimum counts;
    neither is left in one that the other's search has shown not to be the lowest. A start that is
    much wider than the source may end in wider emission around it; nothing wider is looked for.

    Parameters
    ----------
    energy_edges : sequence of energies, optional
        By default each energy bin is a band.
    source : str, optional
        The first source by default.
    fit : `Fit`, optional
    """

    tag = "EnergyDependentMorphologyEstimator"

    def __init__(
        self, energy_edges: Any = None, source: str | None = None, fit: Fit | None = None
    ) -> None:
        self.energy_edges, self.source, self.fit = energy_edges, source, fit

    def run(
        self,
        datasets: MapDataset | Sequence[MapDataset],
        models: Models | None = None,
        progress: Progress = silent,
    ) -> EnergyDependence:
        """Make the comparison; models are not changed.

        Raises
        ------
        InputError, ModelError, DataError
            As `fit_bands`; also if there are fewer than two bands, or neither position nor size of
            the source is free.
        """
        task = _Bands(datasets, models, self.source, self.energy_edges, self.fit)
        if len(task.slices) < 2:
            raise InputError("energy_edges: one band alone cannot differ; expected two or more")
        free = [p.name for p in task.model.spatial_model.parameters if not p.frozen]
        if not free:
            raise InputError(
                f"{task.source}: neither position nor size is free, so there is nothing that could "
                "change with energy"
            )
        return _compare(task, free, progress)


def _compare(task: _Bands, free: list[str], progress: Progress) -> EnergyDependence:
    bands = list(task.alone(part(progress, 0.0, 0.2)))
    starts = [{p: task.model.parameters[p].value for p in free}]
    if "sigma" in free:
        unit = task.model.parameters["sigma"].factor_to_expected
        starts.append({**starts[0], "sigma": _COMPACT / unit})
    starts += [{p: b.values[p] for p in free} for b in bands if b.success]
    bands = [
        task.better(number, band, starts, part(progress, *_share(0.2, 0.5, number, len(bands))))
        for number, band in enumerate(bands)
    ]
    starts += [{p: b.values[p] for p in free} for b in bands if b.success]
    starts = _distinct(starts, bands)
    shapes = [
        CommonShape(
            task.band_evaluators(start),
            task.source,
            free,
            part(progress, *_share(0.5, 0.75, number, len(starts))),
        )
        for number, start in enumerate(starts)
    ]
    common = fit_common(shapes, part(progress, 0.75, 0.8))
    shape = [dict(common.values)] if common.success else []
    bands = [
        task.better(number, band, shape, part(progress, *_share(0.8, 1.0, number, len(bands))))
        for number, band in enumerate(bands)
    ]
    progress(1.0, "Energy dependence done")
    failed = [band for band in bands if not band.success]
    dof = len(free) * (len(bands) - 1)
    # Of the data alone: one common shape has fewer priors than one a band.
    delta = common.stat - task.priors(common.values)
    delta -= sum(band.stat - task.priors(band.values) for band in bands)
    if failed or not common.success:
        reason = failed[0].message if failed else common.message
        where = (
            f"{failed[0].energy_min:.3g} to {failed[0].energy_max:.3g} TeV"
            if failed
            else "all bands together"
        )
        message = f"No comparison: the fit of {where} failed ({reason})."
        return EnergyDependence(
            task.source, tuple(bands), common, float("nan"), dof, float("nan"), False, message
        )
    sigma = sigma_of(delta, dof)
    verdict = "changes" if sigma >= 3.0 else "is not seen to change"
    message = (
        f"The shape {verdict} with energy: delta TS {delta:.2f} for {dof} degrees of freedom, "
        f"{sigma:.2f} sigma."
    )
    weak = [b for b in bands if b.significance < 3.0]
    if weak:
        message += f" The source itself is below 3 sigma in {len(weak)} of {len(bands)} bands."
    return EnergyDependence(
        task.source, tuple(bands), common, float(delta), dof, float(sigma), True, message
    )


def _share(start: float, stop: float, number: int, count: int) -> tuple[float, float]:
    """The part of a progress that one of several steps has."""
    step = (stop - start) / count
    return start + number * step, start + (number + 1) * step


def _near(start: dict[str, float], other: dict[str, float], errors: dict[str, float]) -> bool:
    """Whether two shapes lie within half an error of each other."""
    return all(abs(start[k] - other[k]) < 0.5 * errors[k] for k in start)


def _distinct(starts: list[dict[str, float]], bands: Sequence[BandFit]) -> list[dict[str, float]]:
    """Starts that are not within half the smallest error of one before."""
    errors = {
        key: min((b.errors[key] for b in bands if b.errors[key] > 0), default=0.0)
        for key in starts[0]
    }
    kept: list[dict[str, float]] = []
    for start in starts:
        if not any(_near(start, other, errors) for other in kept):
            kept.append(start)
    return kept


class _Bands:
    """Slices of the datasets, and how a source is fitted there."""

    def __init__(
        self,
        datasets: MapDataset | Sequence[MapDataset],
        models: Models | None,
        source: str | None,
        energy_edges: Any,
        fit: Fit | None,
    ) -> None:
        group = [datasets] if isinstance(datasets, MapDataset) else list(datasets)
        if not group:
            raise InputError("energy bands: there is no dataset")
        chosen = Datasets(group).models if models is None else models
        if chosen is None or not chosen.sky_models:
            raise InputError("energy bands: there is no source; add one first")
        self.models = chosen
        self.source = chosen.sky_models[0].name if source is None else source
        axis, bins = energy_bands(group[0].energy_axis, energy_edges)
        for dataset in group[1:]:
            if not dataset.energy_axis.is_like(group[0].energy_axis):
                raise InputError(
                    f"energy bands: dataset {dataset.name!r} has other energy bins than "
                    f"{group[0].name!r}"
                )
        self.bounds = axis.bounds
        self.slices = [[slice_by_energy(d, band) for d in group] for band in bins]
        band_models(chosen, self.source, self.slices[0])  # a wrong source is found at once
        self.model = chosen[self.source]
        self.fit = Fit() if fit is None else fit

    def alone(self, progress: Progress) -> tuple[BandFit, ...]:
        found = []
        count = len(self.slices)
        for number in range(count):
            share = part(progress, number / count, (number + 1) / count)
            found.append(self.fit_band(number, None, share))
        progress(1.0, "Energy bands done")
        return tuple(found)

    def band_evaluators(self, at: dict[str, float]) -> list[tuple[list[MapDataset], Models]]:
        found = [(group, band_models(self.models, self.source, group, at)) for group in self.slices]
        for _, models in found[1:]:
            for parameter in models[self.source].spatial_model.parameters:
                parameter.prior = None  # of a common shape it counts once
        return found

    def priors(self, shape: Mapping[str, float]) -> float:
        """What the priors of the shape add to a statistic."""
        known = self.model.spatial_model.parameters
        priors = {p.name: p.prior for p in known if p.prior is not None and p.name in shape}
        return float(sum(prior.penalty(shape[name])[0] for name, prior in priors.items()))

    def better(
        self, number: int, band: BandFit, starts: Sequence[dict[str, float]], progress: Progress
    ) -> BandFit:
        """The lowest of the fits of a band from further starts, itself if none is lower."""
        for i, start in enumerate(starts):
            if band.success and _near(start, band.values, band.errors):
                continue
            share = part(progress, *_share(0.0, 1.0, i, len(starts)))
            again = self.fit_band(number, start, share)
            if again.success and (not band.success or again.stat < band.stat - _BETTER):
                band = again
        return band

    def fit_band(self, number: int, at: dict[str, float] | None, progress: Progress) -> BandFit:
        """Fit one band; a failure is kept with its reason."""
        low, high = (float(v) for v in self.bounds[number : number + 2])
        group = self.slices[number]
        models = band_models(self.models, self.source, group, at)
        wanted = [p.name for p in models[self.source].parameters if not p.frozen]

        def tell(fraction: float, message: str) -> None:
            progress(fraction, f"{low:.3g} to {high:.3g} TeV: {message}")

        try:
            result = self.fit.solve(group, models, tell)
        except ImgfitError as error:
            nothing = {name: float("nan") for name in wanted}
            nan = float("nan")
            return BandFit(
                low, high, False, str(error), nan, nothing, dict(nothing), nan, nan, nan, 0, nan
            )
        values = {name: result.value(self.source, name) for name in wanted}
        errors = {name: result.error(self.source, name) for name in wanted}
        source = models[self.source]
        linear = source.linear_parameter
        ts = result.ts[self.source]
        unit = source.spectral_model.copy()
        own = unit.parameters[linear.name]
        own.min = own.max = float("nan")
        own.value = 1.0
        per_unit = float(unit.integral(low, high))
        return BandFit(
            low,
            high,
            bool(result.success),
            result.message,
            float(result.total_stat),
            values,
            errors,
            per_unit * values[linear.name],
            per_unit * errors[linear.name],
            float(ts.ts),
            ts.dof,
            float(ts.sigma),
            result,
        )


def _columns(values: dict[str, float], errors: dict[str, float]) -> dict[str, float]:
    found = {}
    for name, value in values.items():
        found[name], found[f"{name}_err"] = value, errors[name]
    return found


def _shape(values: dict[str, float], errors: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.4f} +/- {errors[k]:.4f}" for k, v in values.items())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
