"""The options of the methods that a configuration names, each a section that validates itself.

``datasets.background.parameters`` and ``datasets.safe_mask.parameters`` are free mappings in the
file; what may stand in them depends on the method:

`SafeMaskOptions`
    Of the safe masks, whichever are chosen.
`FoVBackgroundOptions`
    Of ``fov_background``.
`RingOptions`
    Of ``ring``; with ``r_out_max`` the ring adapts its size.
"""

from __future__ import annotations

from .errors import ConfigError
from .fields import Choice, Number, Quantity, Section, Sub

FRAMES = ("icrs", "galactic")


class SkyPosition(Section):
    """A direction on the sky."""

    frame = Choice(None, "Coordinate frame of lon and lat.", FRAMES, optional=True)
    lon = Quantity(None, "Longitude or right ascension.", optional=True)
    lat = Quantity(None, "Latitude or declination.", bounds=(-90, 90), optional=True)

    def is_set(self) -> bool:
        """Whether a direction is given; ConfigError if only a part of it is."""
        missing = [field.path for field in self.fields() if field.value is None]
        if missing and len(missing) < len(self.keys()):
            raise ConfigError(f"{missing[0]}: not set; expected frame, lon and lat together")
        return not missing


class SafeMaskOptions(Section):
    """Options of the safe masks."""

    aeff_percent = Number(
        10.0, "aeff-max: least effective area, in percent of its maximum.", bounds=(0, 100)
    )
    bias_percent = Number(
        10.0, "edisp-bias: largest bias of the energy, in percent.", bounds=(0, 1000)
    )
    position = Sub(SkyPosition, "Where the thresholds are taken; by default the map's centre.")
    fixed_offset = Quantity(
        None, "Distance from the pointing at which the thresholds are taken.", bounds=(0, 180),
        optional=True,
    )  # fmt: skip
    offset_max = Quantity("3 deg", "offset-max: largest distance from the pointing.", positive=True)
    irfs = Choice(
        "DL4",
        "Whether thresholds come from responses in bins of the map (DL4) or of the file (DL3).",
        ("DL4", "DL3"),
    )


class FoVBackgroundOptions(Section):
    """Options of the background model that is scaled to each observation."""

    method = Choice(
        "scale",
        "scale: by the ratio of the sums; fit: by the likelihood, which is the same for a norm.",
        ("scale", "fit"),
    )
    spectral_model = Choice("pl-norm", "What is fitted: a norm.", ("pl-norm",))
    min_counts = Number(0.0, "A run with no more counts is not used.", bounds=(0, float("inf")))
    min_npred_background = Number(
        0.0, "A run with no more expected background is not used.", bounds=(0, float("inf"))
    )


class RingOptions(Section):
    """Options of the ring background; those from ``r_out_max`` on make it adaptive."""

    r_in = Quantity(None, "Inner radius of the ring.", positive=True, optional=True)
    width = Quantity(None, "Width of the ring.", positive=True, optional=True)
    r_out_max = Quantity(
        None, "Largest outer radius; the ring grows up to it where needed.", positive=True,
        optional=True,
    )  # fmt: skip
    stepsize = Quantity("0.02 deg", "Step by which the ring grows.", positive=True)
    threshold_alpha = Number(
        0.1, "The ring grows until on over off acceptance is below this.", bounds=(1e-6, 1e6)
    )
    theta = Quantity("0.22 deg", "Radius over which the on acceptance is summed.", positive=True)
    method = Choice(
        "fixed_width",
        "What stays when the ring grows: its width or its inner radius.",
        ("fixed_width", "fixed_r_in"),
    )

    @property
    def adaptive(self) -> bool:
        """Whether the ring may grow."""
        return self.r_out_max is not None

    def check(self) -> None:
        """Look at the options together; ConfigError for the first that is wrong."""
        for name in ("r_in", "width"):
            if getattr(self, name) is None:
                raise ConfigError(
                    f"{self.path_of(name)}: not set; the method ring expects r_in and width, "
                    "such as {r_in: 0.7 deg, width: 0.3 deg}"
                )
        if self.adaptive and self.r_out_max < self.r_in + self.width:
            raise ConfigError(
                f"{self.path_of('r_out_max')}: {self.r_out_max} is less than r_in + width = "
                f"{self.r_in + self.width}"
            )
