"""The page: one HTML file with everything in it, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Sequence

import jinja2

from tritier.errors import InputError
from tritier.report.drawing import Drawing, asset
from tritier.report.palette import theme_css
from tritier.report.parts import Block, Chart, Report
from tritier.report.plotting import plot

_BADGES = {"info": "Note", "win": "Better", "loss": "Worse", "warn": "Warning"}


def render_page(report: Report) -> str:
    """The whole page. The same report gives the same text.

    Raises InputError if there are charts and plotly is not installed.
    """
    charts = {f.id: plot(f) for f in report.figures if isinstance(f, Chart)}
    scripts = _scripts(report, bool(charts))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"kind": _kind, "has_hollow": _has_hollow}
    return environment.from_string(asset("page.html.j2")).render(
        report=report,
        badges=_BADGES,
        style=_style(report),
        scripts=scripts,
        charts=script_json(charts) if charts else "",
        policy=_policy(scripts),
    )


def require_charts() -> None:
    """Raise InputError if plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise InputError(
            "charts of the page need plotly: install it with pip install 'tritier[report]'"
        )


def script_json(data: object) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or starts a
    comment."""
    text = json.dumps(data, ensure_ascii=True, sort_keys=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _scripts(report: Report, with_charts: bool) -> list[str]:
    """The first one stands in the head."""
    found = [asset("theme.js")]
    if with_charts:
        found.append(_plotly())
    found.append(asset("page.js"))
    drawings = [item for item in report.figures if isinstance(item, Drawing)]
    found += dict.fromkeys(item.script for item in drawings if item.script)
    return found


def _plotly() -> str:
    require_charts()
    from plotly.offline import get_plotlyjs  # only here: it takes long to import

    text = str(get_plotlyjs())
    if "</script" in text.lower():
        raise InputError(
            "this version of plotly can't stand in a page: its script contains '</script'; install "
            "the version of constraints.txt"
        )
    return text.replace("<!--", "\\x3c!--")


def _style(report: Report) -> str:
    drawings = [item.style for item in report.figures if isinstance(item, Drawing)]
    return "\n".join([*dict.fromkeys(drawings), asset("page.css")] if drawings
                     else [theme_css(), asset("page.css")])  # fmt: skip


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is loaded from anywhere, and only these scripts run, whatever gets into the page."""
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _kind(block: Block) -> str:
    return type(block).__name__


def _has_hollow(chart: Chart) -> bool:
    return any(any(series.hollow) for series in chart.series)
