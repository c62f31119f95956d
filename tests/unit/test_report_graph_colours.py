"""Colours of the report: contrast, and difference for eyes that see colours otherwise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from tritier.report.palette import (
    SERVER_COLOURS,
    THEMES,
    Theme,
    channels,
    colours,
    contrast,
    server_role,
    theme_css,
)

Floats = npt.NDArray[np.float64]
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHTS: dict[str, Floats] = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
TO_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                     [0.2119034982, 0.6806995451, 0.1073969566],
                     [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
TO_OKLAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                     [1.9779984951, -2.4285922050, 0.4505937099],
                     [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def seen(colour: str, sight: str) -> Floats:
    """The colour in Oklab, times 100, as these eyes see it."""
    share = np.array(channels(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = TO_CONES @ np.clip(SIGHTS[sight] @ linear, 0, 1)
    found: Floats = 100 * (TO_OKLAB @ np.cbrt(cones))
    return found


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("theme", THEMES)
def test_servers_differ_for_all_eyes(theme: Theme, sight: str) -> None:
    pairs = combinations(SERVER_COLOURS[theme], 2)
    nearest = min(float(np.linalg.norm(seen(a, sight) - seen(b, sight))) for a, b in pairs)
    assert nearest >= 10


def test_the_measure_of_difference_finds_red_and_green_alike() -> None:
    red, green = "#c0392b", "#6b6b1b"
    far = np.linalg.norm(seen(red, "normal") - seen(green, "normal"))
    assert np.linalg.norm(seen(red, "deuteranopia") - seen(green, "deuteranopia")) < far / 2


@pytest.mark.parametrize("theme", THEMES)
def test_contrast(theme: Theme) -> None:
    found = colours(theme)
    grounds = ("bg", "panel")
    servers = [server_role(index) for index in range(len(SERVER_COLOURS[theme]))]
    for role in (*servers, "line", "cross", "accent"):
        for ground in grounds:
            assert contrast(found[role], found[ground]) >= 3, (role, ground)
    for text in ("ink", "muted"):
        for ground in (*grounds, *(f"{role}-soft" for role in servers)):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    for ground in grounds:
        assert contrast(found["accent"], found[ground]) >= 4.5
    for role in servers:
        assert contrast(found[role], found[f"{role}-soft"]) >= 2.4, role


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_repeat_after_the_last() -> None:
    assert server_role(0) == server_role(8) == "s0"


def test_the_viewer_and_the_page_choose_the_theme() -> None:
    css = theme_css()
    assert "prefers-color-scheme:dark" in css
    assert css.index("prefers-color-scheme") < css.index("[data-theme=light]")
