"""The one family of errors. The library raises them; the command line alone prints and exits.

Every message names the thing, the bad value, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TritierError(Exception):
    """Base of all errors that a user can cause or meet. `exit_code` is what the command returns."""

    exit_code = 1


class CheckFailed(TritierError):
    """The thing was done and what it checked does not hold."""

    exit_code = 1


class UsageError(TritierError):
    """The command was called in a way that can't work."""

    exit_code = 2


class InputError(TritierError):
    """A document, a model or an option has bad content. `faults` holds all that were found."""

    exit_code = 3

    def __init__(self, faults: str | Iterable[str], source: str = "") -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        self.source = source
        super().__init__(self._text())

    def _text(self) -> str:
        prefix = f"{self.source}: " if self.source else ""
        if len(self.faults) == 1:
            return prefix + self.faults[0]
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        return f"{prefix}{len(self.faults)} faults\n{lines}"


class ServerError(TritierError):
    """A Triton server failed, can't be reached or can't be started."""

    exit_code = 4


class InfeasibleError(TritierError):
    """No plan satisfies the limits."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest known word, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
