"""The Markdown summary: the report without its pictures, for a README or a pull request."""

from __future__ import annotations

from urllib.parse import quote

from tritier.report.parts import Chart, Commands, Evidence, Facts, Notice, Report, Section, Table

_SIGNS = {"info": "", "win": "**Better:** ", "loss": "**Worse:** ", "warn": "**Warning:** "}
# Longer tables stand in the page only.
_MOST_ROWS = 40
# What would break a line or a table, or start something else in Markdown.
_ESCAPES = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "*": "\\*", "_": "\\_",
            "`": "\\`", "[": "\\[", "]": "\\]", "#": "\\#", "\r": " ", "\n": " "}  # fmt: skip


def render_markdown(report: Report, figures: str | None = None) -> str:
    """All sections with their tables. `figures`: the folder of pictures, relative to this file;
    without it, charts become tables and drawings are left out."""
    lines = [f"# {escaped(report.title)}", "", escaped(report.subtitle), ""]
    for section in report.sections:
        lines += _section(section, figures)
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Text of a document that means nothing to Markdown."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _section(section: Section, figures: str | None) -> list[str]:
    lines = [f"## {escaped(section.title)}", ""]
    for text in section.lead:
        lines += [escaped(text), ""]
    for tile in section.tiles:
        value = f"**{escaped(tile.value)} {escaped(tile.unit)}**"
        lines.append(f"- {escaped(tile.label)}: {value} ({escaped(tile.detail)})")
    lines += [""] if section.tiles else []
    for block in section.blocks:
        if isinstance(block, Table):
            lines += _table(block)
        elif isinstance(block, Notice):
            lines += [f"{_SIGNS[block.kind]}{escaped(block.text)}", ""]
        elif isinstance(block, Facts):
            lines += [f"- {escaped(name)}: {escaped(value)}" for name, value in block.items] + [""]
        elif isinstance(block, Commands):
            lines += [f"### {escaped(block.title)}", "", *_code(block.lines), ""]
        elif isinstance(block, Evidence):
            lines += _evidence(block) if figures is not None else []
        elif figures is not None:
            lines += [f"![{escaped(block.title)}]({quote(figures)}/{quote(block.id)}.png)", ""]
            lines += [escaped(block.caption), ""]
            lines += _evidence(block.evidence) if isinstance(block, Chart) else []
        elif isinstance(block, Chart):
            found = block.table
            lines += _table(Table(found.id, found.title, found.columns, found.rows, block.evidence))
    for missing in section.missing:
        lines += [f"Not here: {escaped(missing.what)}. It is made by:", ""]
        lines += [*_code((missing.command,)), ""]
    return lines


def _table(table: Table) -> list[str]:
    lines = [f"### {escaped(table.title)}", ""]
    lines.append("| " + " | ".join(escaped(x) for x in table.columns) + " |")
    lines.append("|" + "|".join("---:" if right else "---" for right in table.numeric) + "|")
    shown = table.rows[:_MOST_ROWS]
    lines += ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in shown]
    lines.append("")
    if len(shown) < len(table.rows):
        lines += [f"({len(table.rows) - len(shown)} more rows are in the page.)", ""]
    if table.note:
        lines += [escaped(table.note), ""]
    return lines + _evidence(table.evidence)


def _evidence(evidence: Evidence | None) -> list[str]:
    return [f"*{escaped(evidence.line)}*", ""] if evidence else []


def _code(lines: tuple[str, ...]) -> list[str]:
    """Indented by four, so that no content can end it."""
    return [f"    {line}" for text in lines for line in text.splitlines()]
