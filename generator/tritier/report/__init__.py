"""The report: one HTML page with everything that is known of a plan, its pictures, a summary."""

from tritier.report.build import build_report, contents
from tritier.report.markdown import render_markdown
from tritier.report.material import Material, Paths, collect
from tritier.report.page import render_page
from tritier.report.pictures import render_pictures, require_pictures

__all__ = [
    "Material",
    "Paths",
    "build_report",
    "collect",
    "contents",
    "render_markdown",
    "render_page",
    "render_pictures",
    "require_pictures",
]
