"""What makes a method a verb: it runs on the owner of the state, as one gesture."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .core.errors import ImgfitError
from .state import State

Verb = TypeVar("Verb", bound=Callable[..., Any])


def verb(method: Verb) -> Verb:
    """Run a method on the state's owner, as one gesture, with its error kept in ``error``."""

    @functools.wraps(method)
    def call(self: State, *args: Any, **kwargs: Any) -> Any:
        if not self.owner.is_here:
            return self.owner(lambda: self.attempt(call, self, *args, **kwargs))
        self.error = ""
        try:
            with self.history.gesture():
                return method(self, *args, **kwargs)
        except ImgfitError as error:
            self.error = str(error)
            raise

    return cast(Verb, call)
