"""Colours of the report, light and dark.

The colours of servers differ by at least 10 (distance in Oklab, times 100) for people with normal
sight, protanopia, deuteranopia and tritanopia; every colour has a contrast of at least 3:1 with the
page, and text has 4.5:1 with what it stands on. The tests compute this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")

SERVER_COLOURS: Mapping[Theme, tuple[str, ...]] = {
    "light": ("#2477c4", "#c45500", "#3b2382", "#6e0b04", "#b67d89", "#2510e4", "#7c4e65",
              "#96340e"),
    "dark": ("#4aa3f0", "#f5a742", "#e3d5ff", "#846d50", "#576edd", "#fa1d97", "#b08b05",
             "#89fc97"),
}  # fmt: skip
# bg: the page; panel: boxes that belong to no server; line: links inside a server; cross: what
# goes from server to server; accent: what is found or chosen.
BASE_COLOURS: Mapping[Theme, Mapping[str, str]] = {
    "light": {"bg": "#ffffff", "panel": "#f3f5f8", "ink": "#1a1f29", "muted": "#566070",
              "line": "#848d9b", "grid": "#dde2e9", "cross": "#1a1f29", "accent": "#b3006e"},
    "dark": {"bg": "#14171d", "panel": "#1e232c", "ink": "#eef1f6", "muted": "#b4bcc9",
             "line": "#737d8c", "grid": "#2d343f", "cross": "#f6f8fb", "accent": "#ff7ac8"},
}  # fmt: skip
_SOFT_SHARE: Mapping[Theme, float] = {"light": 0.16, "dark": 0.24}


def server_role(index: int) -> str:
    """The role of a server by its place in the plan; the colours repeat after the last."""
    return f"s{index % len(SERVER_COLOURS['light'])}"


def server_roles(names: Iterable[str]) -> dict[str, str]:
    """Roles of servers, in the order of the plan."""
    return {name: server_role(index) for index, name in enumerate(names)}


def colours(theme: Theme) -> dict[str, str]:
    """Colour of every role, as #rrggbb. `s0` is the first server's, `s0-soft` the ground of its
    boxes."""
    found = dict(BASE_COLOURS[theme])
    for index, colour in enumerate(SERVER_COLOURS[theme]):
        found[f"s{index}"] = colour
        found[f"s{index}-soft"] = _mixed(colour, found["bg"], _SOFT_SHARE[theme])
    return found


def theme_css() -> str:
    """CSS variables `--tt-<role>`: light, dark where the viewer prefers it, and one of them where
    an element has `data-theme`. Classes `tt-f-<role>` fill and `tt-k-<role>` stroke with them."""
    light, dark = (_variables(colours(theme)) for theme in THEMES)
    rules = [
        f":root{{color-scheme:light dark;{light}}}",
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}",
        f"[data-theme=light]{{color-scheme:light;{light}}}",
        f"[data-theme=dark]{{color-scheme:dark;{dark}}}",
    ]
    for index in range(len(SERVER_COLOURS["light"])):
        rules.append(
            f".tt-far .tt-node:not(.tt-int8) .tt-box.tt-k-s{index}{{fill:var(--tt-s{index})}}"
        )
    for role in colours("light"):
        rules.append(
            f".tt-f-{role}{{fill:var(--tt-{role})}}.tt-k-{role}{{stroke:var(--tt-{role})}}"
        )
    return "\n".join(rules) + "\n"


def contrast(first: str, second: str) -> float:
    """Contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    darker, lighter = sorted((_luminance(first), _luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb, from 0 to 255."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _luminance(colour: str) -> float:
    parts = [value / 255 for value in channels(colour)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mixed(colour: str, ground: str, share: float) -> str:
    pairs = zip(channels(colour), channels(ground), strict=True)
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def _variables(found: Mapping[str, str]) -> str:
    return "".join(f"--tt-{role}:{colour};" for role, colour in found.items())
