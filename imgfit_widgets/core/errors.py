"""Errors that a user can act on.

Every error that reaches a person is an `ImgfitError`; its text is one clear message that names the
file, key or field, the value found and what was expected. `InputError` and its leaves mean that
the input is wrong (command line status 2); any other `ImgfitError` that the analysis failed (1).
"""

from __future__ import annotations


class ImgfitError(Exception):
    """Base of all errors that are shown to the user as they are."""


class InputError(ImgfitError):
    """What the user handed in cannot be used."""


class ConfigError(InputError):
    """A key or value of an analysis configuration; the message starts with its YAML path."""


class DataError(InputError):
    """A data file: missing, truncated, or without something that is needed."""


class ModelError(InputError):
    """A model or one of its parameters; the message starts with ``MODEL.PARAMETER``."""


class FitError(ImgfitError):
    """A fit that cannot be done or did not end in a minimum."""
