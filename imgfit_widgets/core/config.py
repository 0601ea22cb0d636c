"""The analysis configuration: Gammapy's keys and defaults, as traits that refuse bad values.

`AnalysisConfig` is read from and written to the YAML that Gammapy's Analysis uses, of today and of
version 0.18 (``fov`` for ``width``). Every key can be set by attribute, with units as text or as a
Quantity::

    config = AnalysisConfig()
    config.datasets.geom.wcs.binsize = "0.02 deg"
    config.datasets.geom.selection.offset_max = 2.5 * u.deg

`AnalysisConfig.check` looks at the keys together (an energy range that is upside down),
`AnalysisConfig.check_supported` refuses, by name, what the reduction cannot do yet.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .errors import ConfigError
from .fields import (
    Choice,
    Choices,
    Field,
    FilePath,
    Flag,
    Ids,
    Instant,
    Options,
    Quantity,
    Section,
    Sub,
    Text,
    Whole,
)
from .options import (
    FRAMES,
    FoVBackgroundOptions,
    RingOptions,
    SafeMaskOptions,
    SkyPosition,
)
from .paths import expand_path
from .yaml_text import YamlProblem, load_yaml

log = logging.getLogger(__name__)

MAPS = ("counts", "exposure", "background", "psf", "edisp")
IRFS = ("aeff", "edisp", "psf", "bkg")
MAX_BINS = 200_000_000
"""Bins of one map; more would not fit into memory."""
PSF_NUMBERS = 44
"""What the PSF is made of at one place and true energy."""

WITHOUT_EFFECT = (
    *("datasets.on_region", "datasets.containment_correction"),
    *("flux_points", "light_curve"),
)
"""Keys, and sections with all their keys, that concern other products than images."""


class SkyCircle(Section):
    """A circle on the sky."""

    frame = Choice(None, "Coordinate frame of lon and lat.", FRAMES, optional=True)
    lon = Quantity(None, "Longitude or right ascension of the centre.", optional=True)
    lat = Quantity(None, "Latitude or declination of the centre.", bounds=(-90, 90), optional=True)
    radius = Quantity(None, "Radius of the circle.", positive=True, optional=True)


class TimeRange(Section):
    """A range of time."""

    start = Instant(None, "Start of the time range.", optional=True)
    stop = Instant(None, "End of the time range.", optional=True)


class EnergyRange(Section):
    """A range of energy."""

    min = Quantity(None, "Lower edge of the range.", unit="TeV", positive=True, optional=True)
    max = Quantity(None, "Upper edge of the range.", unit="TeV", positive=True, optional=True)


class EnergyAxis(Section):
    """Energy bins of equal width in log E."""

    min = Quantity(None, "Lower edge of the first bin.", unit="TeV", positive=True, optional=True)
    max = Quantity(None, "Upper edge of the last bin.", unit="TeV", positive=True, optional=True)
    nbins = Whole(None, "Number of bins between min and max.", optional=True)


class Log(Section):
    """What is logged, and where to."""

    level = Text("info", "Lowest level of messages to show: debug, info, warning or error.")
    filename = FilePath(None, "File for the log; the screen when empty.", optional=True)
    filemode = Text(None, "w to start the log file anew, a to append to it.", optional=True)
    format = Text(None, "Format of one message, as in Python's logging.", optional=True)
    datefmt = Text(None, "Format of dates in messages, as in Python's logging.", optional=True)


class General(Section):
    """Files and computing."""

    log = Sub(Log, "What is logged, and where to.")
    outdir = Text(".", "Folder for the results of a command that is given no other.")
    n_jobs = Whole(1, "Number of processes that reduce observations side by side.")
    datasets_file = FilePath(None, "File with reduced datasets.", optional=True)
    models_file = FilePath(None, "File with the models.", optional=True)


class Observations(Section):
    """Which observations are used."""

    datastore = FilePath(
        "$GAMMAPY_DATA/hess-dl3-dr1",
        "Folder with the DL3 index files; $VARIABLES are expanded.",
    )
    obs_ids = Ids([], "Observations to use; all of the index when empty.")
    obs_file = FilePath(None, "File with a list of observations.", optional=True)
    obs_cone = Sub(SkyCircle, "Use observations that point into this circle.")
    obs_time = Sub(TimeRange, "Use observations taken in this range of time.")
    required_irf = Choices(
        list(IRFS),
        "Instrument responses that every observation must have.",
        ("events", "gti", "aeff", "bkg", "edisp", "psf", "rad_max"),
    )

    @property
    def datastore_path(self) -> Path:
        """The data store with ``~`` and ``$VARIABLES`` expanded.

        Raises
        ------
        ConfigError
            A variable is not set.
        """
        return expand_path(self.datastore, self.path_of("datastore"))


class Width(Section):
    """Size of the map."""

    width = Quantity("5 deg", "Size of the map in longitude.", positive=True)
    height = Quantity("5 deg", "Size of the map in latitude.", positive=True)


class Wcs(Section):
    """Pixels of the map."""

    aliases = {"fov": "width"}  # noqa: RUF012

    skydir = Sub(SkyPosition, "Centre of the map.")
    binsize = Quantity("0.02 deg", "Size of a pixel.", positive=True)
    width = Sub(Width, "Size of the map.")
    binsize_irf = Quantity(
        "0.2 deg", "Grid on which the PSF and energy dispersion are kept.", positive=True
    )

    @property
    def fov(self) -> Width:
        """The name that `width` had in version 0.18."""
        return self.width

    @fov.setter
    def fov(self, value: Any) -> None:
        self.width = value


class Selection(Section):
    """Which events are used."""

    offset_max = Quantity(
        "2.5 deg", "Largest distance from the pointing that is used.", positive=True
    )


class EnergyAxes(Section):
    """Energy bins of the maps."""

    energy = Sub(
        EnergyAxis, "Reconstructed energy: the bands of the maps.", min="1 TeV", max="10 TeV",
        nbins=5,
    )  # fmt: skip
    energy_true = Sub(
        EnergyAxis, "True energy: the bins of exposure and responses.", min="0.5 TeV",
        max="20 TeV", nbins=16,
    )  # fmt: skip


class Geom(Section):
    """Geometry of the maps."""

    wcs = Sub(Wcs, "Pixels of the map.")
    selection = Sub(Selection, "Which events are used.")
    axes = Sub(EnergyAxes, "Energy bins of the maps.")


class Background(Section):
    """How the background is estimated."""

    method = Choice(
        None,
        "How the background model is scaled to each observation.",
        ("reflected", "fov_background", "ring"),
        optional=True,
    )
    exclusion = FilePath(
        None,
        "FITS mask or DS9 regions that are kept out of the estimate of the background.",
        optional=True,
    )
    parameters = Options({}, "Options of the background method.")

    def options(self) -> FoVBackgroundOptions | RingOptions | None:
        """The parameters of the method, checked; None without a method.

        Raises
        ------
        ConfigError
            A parameter is unknown, missing or has a bad value.
        """
        if self.method is None:
            if self.parameters:
                raise ConfigError(
                    f"{self.path_of('parameters')}: {sorted(self.parameters)[0]!r} has no use "
                    "without a method; expected none, or the method fov_background or ring"
                )
            return None
        if self.method == "ring":
            ring = RingOptions(self, "parameters")
            ring.fill(self.parameters)
            ring.check()
            return ring
        fov = FoVBackgroundOptions(self, "parameters")
        fov.fill(self.parameters)
        return fov


class SafeMask(Section):
    """Which bins are trusted."""

    methods = Choices(
        ["aeff-default"],
        "How bins that cannot be trusted are masked.",
        ("aeff-default", "aeff-max", "edisp-bias", "offset-max", "bkg-peak"),
    )
    parameters = Options({}, "Options of the mask methods, such as offset_max.")

    def options(self) -> SafeMaskOptions:
        """The parameters of the methods, checked.

        Raises
        ------
        ConfigError
            A parameter is unknown or has a bad value.
        """
        options = SafeMaskOptions(self, "parameters")
        options.fill(self.parameters)
        if options.position.is_set() and options.fixed_offset is not None:
            raise ConfigError(
                f"{options.path_of('fixed_offset')}: {options.fixed_offset} is given beside a "
                "position; expected one of the two"
            )
        return options


class Datasets(Section):
    """How events become maps."""

    type = Choice("1d", "3d for maps (an image is a map with one energy bin).", ("1d", "3d"))
    stack = Flag(True, "Add all observations up into one dataset.")
    geom = Sub(Geom, "Geometry of the maps.")
    map_selection = Choices(list(MAPS), "Which maps are made.", MAPS)
    background = Sub(Background, "How the background is estimated.")
    safe_mask = Sub(SafeMask, "Which bins are trusted.")
    on_region = Sub(SkyCircle, "Region of a one-dimensional analysis.")
    containment_correction = Flag(True, "Correct a one-dimensional analysis for the PSF.")


class FitSection(Section):
    """What is fitted."""

    fit_range = Sub(EnergyRange, "Energies that the fit uses.")


class FluxPoints(Section):
    """Spectral points after a fit."""

    energy = Sub(EnergyAxis, "Energy bins of the points.")
    source = Text("source", "Name of the source.")
    parameters = Options({"selection_optional": "all"}, "Options of the estimator.")


class ExcessMap(Section):
    """Excess and significance maps."""

    correlation_radius = Quantity("0.1 deg", "Radius over which counts are summed.", positive=True)
    parameters = Options({}, "Options of the estimator.")
    energy_edges = Sub(EnergyAxis, "Energy bins of the excess maps.")


class LightCurve(Section):
    """Flux against time."""

    time_intervals = Sub(TimeRange, "Range of time.")
    energy_edges = Sub(EnergyAxis, "Energy bins of the light curve.")
    source = Text("source", "Name of the source.")
    parameters = Options({"selection_optional": "all"}, "Options of the estimator.")


class AnalysisConfig(Section):
    """The whole configuration; keywords are its sections, as mappings."""

    general = Sub(General, "Files and computing.")
    observations = Sub(Observations, "Which observations are used.")
    datasets = Sub(Datasets, "How events become maps.")
    fit = Sub(FitSection, "What is fitted.")
    flux_points = Sub(FluxPoints, "Spectral points after a fit.")
    excess_map = Sub(ExcessMap, "Excess and significance maps.")
    light_curve = Sub(LightCurve, "Flux against time.")

    def __init__(self, **sections: Any) -> None:
        super().__init__()
        # Who wrote a file, when, and its checksum say nothing about the analysis.
        self.fill({k: v for k, v in sections.items() if k not in ("metadata", "checksum")})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AnalysisConfig:
        """Make a configuration from plain nested mappings; what is left out is default."""
        if not isinstance(data, Mapping):
            raise ConfigError(
                f"configuration: {data!r} cannot be used; expected a mapping with the keys "
                + ", ".join(cls.keys())
            )
        config = cls(**{str(key): value for key, value in data.items()})
        config.check()
        return config

    @classmethod
    def from_yaml(cls, text: str) -> AnalysisConfig:
        """Make a configuration from YAML text.

        Raises
        ------
        ConfigError
            The text is not YAML, or a key or a value is wrong.
        """
        return cls.from_dict(_load(text, "configuration"))

    @classmethod
    def read(cls, path: str | Path) -> AnalysisConfig:
        """Read a YAML file. Relative paths of what lies beside the file are found from anywhere."""
        path = expand_path(path, "configuration")
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            reason = (error.strerror or "not readable").lower()
            raise ConfigError(f"{path}: cannot read the configuration: {reason}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not a text file; expected YAML") from None
        try:
            config = cls.from_dict(_load(text, "configuration"))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        for field in config.fields():
            if isinstance(field.value, Path) and field.path != "general.log.filename":
                beside = path.parent / field.value
                elsewhere = not field.value.is_absolute() and beside.exists()
                if elsewhere and beside.resolve() != field.value.resolve():
                    field.set(beside.resolve())
        return config

    def write(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a YAML file that Gammapy reads too."""
        path = expand_path(path, "configuration")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path}: exists already; give overwrite=True to replace it")
        path.write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """All keys as YAML text, in Gammapy's order and spelling."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, indent=4, width=80))

    def __str__(self) -> str:
        return f"{type(self).__name__}\n\n    " + self.to_yaml().replace("\n", "\n    ")

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def copy(self) -> AnalysisConfig:
        """An independent configuration with the same values."""
        new = type(self)()
        new.take(self)
        return new

    def field(self, path: str) -> Field:
        """The field at a YAML path; ConfigError with the nearest right path if there is none."""
        section: Section = self
        *parents, last = path.split(".")
        for name in parents:
            if not isinstance(section.traits().get(name), Sub):
                raise section.unknown(name)
            section = getattr(section, name)
        name = section.aliases.get(last, last)
        found = [field for field in section.fields() if field.path == section.path_of(name)]
        if not found:
            raise section.unknown(last)
        return found[0]

    def get(self, path: str) -> Any:
        """The value at a YAML path such as ``datasets.geom.wcs.binsize``."""
        return self.field(path).value

    def set(self, path: str, value: Any) -> None:
        """Assign a value, or its text, at a YAML path."""
        self.field(path).set(value)

    def update(
        self, config: str | Mapping[str, Any] | AnalysisConfig | None = None
    ) -> AnalysisConfig:
        """Return a new configuration: this one, with what ``config`` sets put over it."""
        data = self.to_dict()
        if isinstance(config, AnalysisConfig):
            other: Mapping[str, Any] = config.changes()
        elif isinstance(config, str):
            other = _load(config, "configuration")
            type(self).from_dict(other)
        else:
            other = config or {}
        return type(self).from_dict(_merged(data, other, self))

    def changes(self) -> dict[str, Any]:
        """Only what differs from the defaults, as nested mappings."""
        return _difference(self.to_dict(), type(self)().to_dict())

    def set_logging(self) -> None:
        """Configure Python's logging as ``general.log`` says.

        Raises
        ------
        ConfigError
            One of its keys cannot be used.
        """
        options = _logging_options(self.general.log)
        try:
            logging.basicConfig(**options)
        except OSError as error:
            reason = (error.strerror or "not writable").lower()
            raise ConfigError(
                f"general.log.filename: {options['filename']!r} cannot be written: {reason}"
            ) from None
        log.info("Setting logging config: %r", self.general.log.to_dict())

    def check(self) -> None:
        """Look at every value and at those that only make sense together.

        Raises
        ------
        ConfigError
            The first key that is wrong, with its path.
        """
        for field in self.fields():  # lists and mappings may have been changed in place
            if field.value is not None:
                field.trait.validate(field.section, field.value)
        for section in _sections(self):
            if isinstance(section, (EnergyAxis, EnergyRange)):
                low, high = section.min, section.max
                if low is not None and high is not None and low >= high:
                    raise ConfigError(
                        f"{section.path}: min {low} is not below max {high}; "
                        "expected the lower edge first"
                    )
            elif isinstance(section, TimeRange):
                start, stop = section.start, section.stop
                if start is None or stop is None:
                    continue
                # One instant beside several is as wrong as two beside three.
                if start.shape != stop.shape:
                    raise ConfigError(
                        f"{section.path_of('stop')}: has {stop.size} times, "
                        f"{section.path_of('start')} has {start.size}; expected as many"
                    )
                if np.any(start >= stop):
                    raise ConfigError(f"{section.path}: start {start} is not before stop {stop}")

    def check_supported(self) -> None:
        """Refuse by name what no image can be made of, before any file is read.

        Keys that only concern other products than images (`WITHOUT_EFFECT`: spectra, flux points,
        light curves) are kept for whoever makes those, and one message in the log names those that
        are set.

        Raises
        ------
        ConfigError
            A key is not set that is needed, or has a value of which no image can be made.
        """
        self.check()
        data = self.datasets
        _only(data, "type", ("3d",), "images; 1d is for spectra")
        self._check_geometry()
        if "counts" not in data.map_selection:
            _refuse(data, "map_selection", "counts among the maps, which an image is")
        if "rad_max" in self.observations.required_irf:
            _refuse(
                self.observations, "required_irf",
                "full-enclosure responses; rad_max is one of point-like ones, for spectra",
            )  # fmt: skip
        _only(
            data.background, "method", (None, "fov_background", "ring"),
            "images; reflected regions are for spectra",
        )  # fmt: skip
        if data.background.method is not None and "background" not in data.map_selection:
            _refuse(data, "map_selection", f"background for the method {data.background.method}")
        data.background.options()
        data.safe_mask.options()
        idle = self.without_effect()
        if idle:
            log.info("Without effect on images: %s", ", ".join(idle))

    def without_effect(self) -> list[str]:
        """The keys and sections that are set and concern no image, such as ``flux_points``."""
        paths = [
            field.path
            for field in self.fields()
            if _within(field.path, WITHOUT_EFFECT)
            and field.trait.plain(field.value) != _defaults()[field.path]
        ]
        return [key for key in WITHOUT_EFFECT if any(_within(path, (key,)) for path in paths)]

    def _check_geometry(self) -> None:
        wcs, axes = self.datasets.geom.wcs, self.datasets.geom.axes
        needed = [*wcs.skydir.fields(), *axes.energy.fields()]
        # Without true energies, the reconstructed ones are taken, as in Gammapy.
        if any(field.value is not None for field in axes.energy_true.fields()):
            needed += axes.energy_true.fields()
        for field in needed:
            if field.value is None:
                raise ConfigError(f"{field.path}: not set; expected {field.expected}")
        if abs(wcs.skydir.lon.deg) > 360:
            _refuse(wcs.skydir, "lon", "an angle from -360 to 360 deg")
        size = (wcs.width.width, wcs.width.height)
        for name, length in zip(("width", "height"), size, strict=True):
            if length < wcs.binsize:
                raise ConfigError(
                    f"{wcs.width.path_of(name)}: {length} is less than one pixel of {wcs.binsize}"
                )
        pixels = float(size[0] / wcs.binsize) * float(size[1] / wcs.binsize)
        bands = max(axes.energy.nbins, axes.energy_true.nbins or 0)
        bins = pixels * min(bands, MAX_BINS)  # a number of any size may stand in a file
        if bins > MAX_BINS:
            raise ConfigError(
                f"{wcs.path_of('binsize')}: {wcs.binsize} makes maps of {bins:.1e} bins, "
                f"more than {MAX_BINS:.0e}; expected larger pixels, a smaller map or fewer bins"
            )
        nodes = float(size[0] / wcs.binsize_irf) * float(size[1] / wcs.binsize_irf)
        numbers = PSF_NUMBERS * nodes * min(axes.energy_true.nbins or bands, MAX_BINS)
        if numbers > MAX_BINS:
            raise ConfigError(
                f"{wcs.path_of('binsize_irf')}: {wcs.binsize_irf} makes responses of "
                f"{numbers:.1e} numbers, more than {MAX_BINS:.0e}; expected larger pixels"
            )


def _load(text: str, what: str) -> Any:
    try:
        data = load_yaml(text)
    except YamlProblem as error:
        place = f" in {error.place}" if error.place else ""
        raise ConfigError(f"{what}: not valid YAML{place}: {error}") from None
    return {} if data is None else data


def _logging_options(section: Log) -> dict[str, Any]:
    """Arguments for `logging.basicConfig`, which itself only complains when a message is shown."""

    def bad(name: str, value: Any, expected: str) -> ConfigError:
        problem = f"{str(value)!r} cannot be used; expected {expected}"
        return ConfigError(f"{section.path_of(name)}: {problem}")

    options = {key: value for key, value in section.to_dict().items() if value}
    options["level"] = str(options.get("level", "info")).upper()
    levels = logging.getLevelNamesMapping()
    if options["level"] not in levels:
        raise bad("level", section.level, "debug, info, warning, error or critical")
    if options.get("filemode", "a") not in ("w", "a"):
        raise bad("filemode", section.filemode, "w to start the file anew or a to append to it")
    record = logging.LogRecord("imgfit_widgets", levels["INFO"], "", 0, "", None, None)
    formats = {"format": (section.format,), "datefmt": ("%(asctime)s", section.datefmt)}
    for name, arguments in formats.items():
        try:
            logging.Formatter(*arguments).format(record)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"a format of Python's logging, or null ({error})"
            raise bad(name, getattr(section, name), reason) from None
    if section.filename is not None:
        path = expand_path(section.filename, section.path_of("filename"))
        if path.is_dir() or not path.parent.is_dir():
            raise bad("filename", section.filename, "a file in a folder that is there")
        options["filename"] = str(path)
    return options


def _sections(section: Section) -> list[Section]:
    inside = [getattr(section, key) for key in section.keys()]  # noqa: SIM118
    nested = [_sections(item) for item in inside if isinstance(item, Section)]
    return [section, *(item for group in nested for item in group)]


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], section: Section) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        name = section.aliases.get(key, key)
        part = getattr(section, name) if name in section.keys() else None  # noqa: SIM118
        if isinstance(part, Section) and isinstance(value, Mapping):
            value = _merged(merged[name], value, part)
        merged[name] = value
    return merged


def _difference(data: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and isinstance(default.get(key), dict) and default[key]:
            value = _difference(value, default[key])
            if value:
                changed[key] = value
        elif value != default.get(key):
            changed[key] = value
    return changed


def _refuse(section: Section, name: str, expected: str) -> None:
    shown = section.traits()[name].text(getattr(section, name))  # type: ignore[attr-defined]
    raise ConfigError(
        f"{section.path_of(name)}: {shown or 'null'!r} cannot be used; expected {expected}"
    )


def _only(section: Section, name: str, allowed: tuple[str | None, ...], purpose: str) -> None:
    if getattr(section, name) not in allowed:
        words = " or ".join("null" if a is None else a for a in allowed)
        _refuse(section, name, f"{words}, for {purpose}")


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    """The plain values of a new configuration by their paths."""
    return {field.path: field.trait.plain(field.value) for field in AnalysisConfig().fields()}


def _within(path: str, keys: tuple[str, ...]) -> bool:
    """Whether a path is one of the keys or lies below one."""
    return any(path == key or path.startswith(f"{key}.") for key in keys)
