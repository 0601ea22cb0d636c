"""Which data the maps show: the dataset, the energy band, and what the background leaves out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from traitlets import Int

from ..core.dataset import MapDataset
from ..core.maps import MapAxis
from ..session import Session
from . import lean
from .lean import show
from .style import text

ALL_BANDS = "All energies"
ALL = -1
"""Stands for all bands in a select, to which None means that nothing is chosen."""


def band_words(axis: MapAxis) -> list[str]:
    """The bands of an energy axis in words: "1 – 3.16 TeV"."""
    edges = axis.edges
    return [f"{low.value:.3g} – {high.value:.3g} {edges.unit}" for low, high in pairwise(edges)]


class MapChoice(lean.HBox):
    """Selects that are there only where there is something to choose from.

    ``band`` is the reconstructed energy bin that is shown, None for the sum over all.
    """

    band = Int(None, allow_none=True)

    def __init__(self, session: Session) -> None:
        self.session, self._offering = session, False
        self.dataset = lean.Dropdown(tooltip="Which dataset is shown", classes="imgfit-map-dataset")
        self.energy = lean.Dropdown(
            options=[(ALL_BANDS, ALL)],
            tooltip="Reconstructed energies that are shown",
            classes="imgfit-map-band",
        )
        self.excluded = lean.ToggleButton(
            value=True,
            description="Exclusion",
            tooltip="Hatch what is kept out of the estimate of the background",
            classes="imgfit-button imgfit-tool imgfit-map-exclusion",
        )
        self.why = text("", "imgfit-muted imgfit-why-no-source")
        super().__init__(
            [self.dataset, self.energy, self.excluded, self.why], classes="imgfit-map-choice"
        )
        self.dataset.observe(self._chosen, "value")
        self.energy.observe(lambda _: session.owner(self._band_chosen), "value")

    def offer(self, dataset: MapDataset) -> None:
        """Offer what there is beside a dataset, and its bands."""
        session = self.session
        names = session.datasets.names if session.datasets is not None else [dataset.name]
        if tuple(self.dataset.options) != tuple(names):
            self._offering = True  # new options choose the first by themselves
            self.dataset.options = names
            self._offering = False
        self.dataset.value = dataset.name
        bands: list[tuple[str, Any]] = [(ALL_BANDS, ALL)]
        bands += [(words, k) for k, words in enumerate(band_words(dataset.energy_axis))]
        if tuple(bands) != tuple(self.energy.options):
            self.energy.options = bands
        show(self.dataset, len(names) > 1)
        show(self.energy, len(bands) > 2)
        show(self.excluded, session.excluded is not None)
        self.why.value = "" if dataset.exposure is not None else session.why_not("add_source")
        show(self.why, bool(self.why.value))

    def take(self, band: Any) -> None:
        """Show a band, if there is one of this number."""
        band = ALL if band is None else band
        if band in [value for _, value in self.energy.options]:
            self.energy.value = band

    def _chosen(self, change: Any) -> None:
        if change.new is not None and not self._offering:
            self.session.owner(lambda: self.session.set_trait("dataset_name", change.new))

    def _band_chosen(self) -> None:
        self.band = None if self.energy.value == ALL else self.energy.value
