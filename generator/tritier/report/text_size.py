"""How wide a text is, about, and how it is shortened to fit: no font is at hand to ask."""

from __future__ import annotations

import unicodedata

_NARROW = frozenset("iljtfI.,:;'|!()[]/\\ `-")
_WIDE = frozenset("mwMW@%")
# Shares of the font size, of a wide sans-serif font: real texts are rarely wider.
_SHARES = {"narrow": 0.38, "normal": 0.62, "capital": 0.72, "wide": 0.98}
_BOLD = 1.1


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in units of a line of text; `size` is that of the font."""
    total = sum(_share(character) for character in text)
    return total * size * (_BOLD if bold else 1.0)


def fitted(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text, or its start and end with '…' between, not wider than `width`.

    An empty text if not even '…' fits.
    """
    if text_width(text, size, bold=bold) <= width:
        return text
    low, high = 0, len(text) - 1  # how many characters may stay
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(_cut(text, middle), size, bold=bold) <= width:
            low = middle
        else:
            high = middle - 1
    found = _cut(text, low)
    return found if text_width(found, size, bold=bold) <= width else ""


def _cut(text: str, kept: int) -> str:
    start = (kept + 1) // 2
    return f"{text[:start]}…{text[len(text) - (kept - start) :]}"


def _share(character: str) -> float:
    if unicodedata.east_asian_width(character) in ("W", "F"):
        return 1.05
    if character in _NARROW:
        return _SHARES["narrow"]
    if character in _WIDE or character == "…":
        return _SHARES["wide"]
    return _SHARES["capital" if character.isupper() else "normal"]
