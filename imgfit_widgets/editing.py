"""What the model editor does: sources come, go and change; parameters get links and priors."""

from __future__ import annotations

from collections.abc import Iterable

from . import changes, sources
from . import session_files as files
from .core.errors import ModelError
from .core.models import Models, Parameter, Prior, SkyModel, SpatialModel
from .state import State
from .verbs import verb


class Editing(State):
    """The verbs that change models; each is one step of undo."""

    @verb
    def set_models(self, models: Models | str) -> None:
        """Take over models: an object or YAML text."""
        if isinstance(models, str):
            files.check_models(models, self.data_roots)
            models = Models.from_yaml(models)
        else:
            models = models.copy()
        self._put(models, self.datasets, self._reduced)

    @verb
    def add_source(
        self,
        lon: float,
        lat: float,
        frame: str | None = None,
        spatial: str | type[SpatialModel] = "point",
        name: str | None = None,
    ) -> str:
        """Add a source at (lon, lat) in degrees of ``frame``, by default the map's; its name.

        Its amplitude is the one that the counts at that place ask for.
        """
        dataset = self._dataset("add_source")
        name = name or self.models.unique_name("Source")
        source = sources.new_source(dataset, (lon, lat), frame, spatial, name)
        self.models.insert(len(self.models.sky_models), source)
        self._move(name)
        self.selected = name
        return name

    @verb
    def remove_source(self, name: str | None = None) -> None:
        """Remove a model, the selected source by default."""
        if not name:
            self._require("remove_source")
        gone = name or self.selected
        place = self.models.names.index(gone) if gone in self.models.names else 0
        self.models.remove(gone)
        left = [model.name for model in self.models.sky_models]
        beside = left[min(place, len(left) - 1)] if left else ""
        self.select(beside if gone == self.selected else self.selected)

    @verb
    def rename(self, old: str, new: str) -> None:
        """Give a model another name, which no other model has."""
        model, new = self.models[old], new.strip()
        if not new:
            raise ModelError(f"{old}: the new name is empty; expected at least one character")
        if new != old and new in self.models.names:
            raise ModelError(f"{old}: there is a model {new!r} already; expected another name")
        model.name = new
        if self.selected == old:
            self.selected = new

    @verb
    def set_shape(self, name: str, tag: str, filename: str | None = None) -> None:
        """Give a source another spatial model at the same position and of the same extent.

        ``filename`` is the FITS image of a template.
        """
        source = self._source_named(name)
        if tag in source.spatial_model.tag and filename is None:
            return
        if filename is not None:
            files.check_path(f"{name}.filename", filename, self.data_roots)
        changes.put(self.models, name, changes.reshaped(source, tag, filename))
        self._move(name)

    @verb
    def set_spectrum(self, name: str, tag: str) -> None:
        """Give a source another spectral model of the same flux over the energies of the data."""
        source = self._source_named(name)
        if tag in source.spectral_model.tag:
            return
        dataset = self.dataset
        axis = None if dataset is None else dataset.energy_axis
        band = (1.0, 10.0) if axis is None else (float(axis.bounds[0]), float(axis.bounds[-1]))
        bands = 1 if axis is None else axis.nbin
        changes.put(self.models, name, changes.respectred(source, tag, band, bands))
        sources.without_errors(self.models, list(source.parameters))

    @verb
    def set_frame(self, name: str, frame: str) -> None:
        """Give a source its position and orientation in another frame, at the same place."""
        source = self._source_named(name)
        if frame != source.frame:
            changes.put(self.models, name, changes.reframed(source, frame))
            sources.without_errors(self.models, list(source.parameters))

    @verb
    def set_datasets_names(self, name: str, names: Iterable[str] | None) -> None:
        """Say which datasets a source is in; None for all."""
        source = self._source_named(name)
        known = [] if self.datasets is None else self.datasets.names
        chosen = known if names is None else list(names)
        unknown = [item for item in chosen if item not in known]
        if unknown:
            raise ModelError(
                f"{name}.datasets_names: {unknown[0]!r} is no dataset; expected some of "
                f"{', '.join(known)}"
            )
        if not chosen:
            raise ModelError(f"{name}.datasets_names: empty; expected at least one dataset")
        every = names is None or set(chosen) == set(known)
        source.datasets_names = None if every else [n for n in known if n in chosen]

    @verb
    def link(self, parameter: Parameter | str, other: Parameter | str) -> None:
        """Let a parameter follow another one: from then on they have one value in common."""
        follower = changes.find_parameter(self.models, parameter)
        leader = changes.find_parameter(self.models, other)
        if follower.leader is leader.leader:
            return
        changes.unlink(self.models, follower)
        follower.link = leader

    @verb
    def unlink(self, parameter: Parameter | str) -> None:
        """Let a parameter go its own way again; others that were linked with it stay linked."""
        changes.unlink(self.models, changes.find_parameter(self.models, parameter))

    @verb
    def set_prior(self, parameter: Parameter | str, prior: Prior | None) -> None:
        """Say what is known of a parameter beforehand; None for nothing."""
        changes.find_parameter(self.models, parameter).prior = prior

    @verb
    def add_regions(self, text: str) -> list[str]:
        """Add sources of the shape of DS9 regions, given as text; their names."""
        dataset = self._dataset("add_source")
        found = sources.from_regions(text, dataset, self.models)
        with self.history.gesture():
            for source in found:
                self.models.insert(len(self.models.sky_models), source)
                self._move(source.name)
            self.selected = found[-1].name
        return [source.name for source in found]

    def _source_named(self, name: str) -> SkyModel:
        model = self.models[name]
        if not isinstance(model, SkyModel):
            raise ModelError(f"{name}: it is a background; expected one of the sources")
        return model

    def select(self, name: str) -> None:
        """Select a model by name; an empty or unknown name selects none."""
        self.selected = name if name in self.models.names else ""
