"""What reports are made of: figures that say where they are from, tables, numbers for people."""

from __future__ import annotations

from typing import Any

import pytest

from tritier.report.parts import (
    Axis,
    Chart,
    Evidence,
    Report,
    Section,
    Series,
    Table,
    number,
    percent,
    spanned,
)
from tritier.report.pictures import picture
from tritier.report.plotting import plot


def chart(**changes: Any) -> Chart:
    series = Series("<b>a</b>", (1, 2), (3.0, 4.0), low=(2.0, 3.5), high=(4.0, 4.5),
                    notes=("x", ""), hollow=(False, True))  # fmt: skip
    given: dict[str, Any] = {
        "id": "c", "title": "T", "caption": "C", "x": Axis("load"), "y": Axis("ms"),
        "series": (series,), "evidence": Evidence("ms", "predicted"),
        "hollow_means": "unstable",
    }  # fmt: skip
    return Chart(**{**given, **changes})


def test_measured_figures_say_n_and_spread() -> None:
    assert Evidence("ms", "predicted").line == "unit: ms; source: predicted"
    assert "n: 5" in Evidence("ms", "measured", "5 requests", "std 1 ms").line
    for n, spread in (("", "std 1 ms"), ("5", "")):
        with pytest.raises(ValueError, match="R9"):
            Evidence("ms", "predicted and measured", n, spread)


def test_a_chart_is_a_table_too() -> None:
    found = chart().table
    assert found.columns == ("series", "load", "ms", "low", "high", "note")
    assert found.rows == (
        ("<b>a</b>", "1", "3", "2", "4", "x"),
        ("<b>a</b>", "2", "4", "3.5", "4.5", "unstable"),
    )
    assert found.numeric == (False, True, True, True, True, False)


def test_wrong_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 of y for 2"):
        Series("s", (1, 2), (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="no number"):
        Series("s", (1,), (float("nan"),))
    with pytest.raises(ValueError, match="cells"):
        Table("t", "T", ("a", "b"), (("1",),))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234567, "0.01235"), (123456.7, "123,457"), (12, "12"), (1e-7, "1e-07"),
     (99999, "99,999"), (25.666, "25.67"), (None, ""), (1234.5, "1234"), (1234567.0, "1,234,567")],
)  # fmt: skip
def test_numbers_for_people(value: Any, text: str) -> None:
    assert number(value) == text


def test_shares_for_people() -> None:
    assert percent(-0.0004, signed=True) == "0.0 %"
    assert percent(0.021, signed=True) == "+2.1 %"
    assert percent(None) == ""
    assert (spanned([3, 3], "runs"), spanned([3, 5], "runs")) == ("3 runs", "3 to 5 runs")


def test_plotly_gets_texts_that_are_no_markup() -> None:
    found = plot(chart())
    (trace,) = found["data"]
    assert trace["name"] == "&lt;b&gt;a&lt;/b&gt;"
    assert trace["marker"]["symbol"] == ["circle", "circle-open"]
    assert trace["error_y"]["array"] == [1.0, 0.5]
    assert trace["error_y"]["arrayminus"] == [1.0, 0.5]


def test_long_names_of_bars_stand_beside_them() -> None:
    names = ("best single cut to edge, after 'conv1'", "all on device")
    bars = Series("b", names, (3.0, 4.0), kind="bars")
    found = plot(chart(series=(bars,), x=Axis("placement", "category")))
    assert found["data"][0]["orientation"] == "h"
    assert found["layout"]["yaxis"]["categoryarray"] == list(names[::-1])
    short = Series("b", ("x", "y"), (3.0, 4.0), kind="bars")
    found = plot(chart(series=(short,), x=Axis("placement", "category")))
    assert found["data"][0]["orientation"] == "v"


def test_pictures_are_the_same_twice() -> None:
    assert picture(chart(), "svg") == picture(chart(), "svg")
    assert picture(chart(), "png")[:8] == b"\x89PNG\r\n\x1a\n"
    other = chart(series=(Series("a", (1, 2), (3.0, 5.0)),))
    assert picture(chart(), "svg") != picture(other, "svg")


def test_names_in_pictures_are_no_formulas() -> None:
    name = "a$\\foo$b \u3042"
    bars = Series(name, (name, "b"), (3.0, 4.0), kind="bars")
    found = chart(series=(bars,), x=Axis(name, "category"), y=Axis(name), title=name)
    assert picture(found, "png")[:4] == b"\x89PNG"
    assert picture(found, "svg") == picture(found, "svg")


def test_what_is_missing_is_told_once() -> None:
    from tritier.report.parts import Missing

    sections = tuple(Section(x, x, missing=(Missing("a", "b"),)) for x in "xy")
    assert len(Report("t", "s", sections, "1").missing) == 1
