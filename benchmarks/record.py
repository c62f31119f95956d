"""The page of an experiment: what the last run for record found, between two marks of the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritier.errors import InputError
from tritier.files import write_file

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def filled(page: str, text: str) -> str:
    """A page with the results between its marks. Raises InputError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"the page has no marks {BEGIN} and {END}: results go between them")
    return f"{before}{BEGIN}\n\n{text.rstrip()}\n\n{END}{after}"


def record(
    page: Path, text: str, pictures: Mapping[str, Path], found_on: Mapping[str, Any]
) -> None:
    """Fill a page with a table, pictures (title -> file; copied beside the page, named after it)
    and a line of the machine. Raises InputError if the page has no marks; then nothing changes."""
    shown = []
    for title, picture in pictures.items():
        name = f"{page.stem}_{picture.name}"
        shown.append(f"![{title}]({name})")
    lines = [machine(found_on), *shown, text]
    whole = filled(page.read_text(), "\n\n".join(lines))
    for picture in pictures.values():
        write_file(page.parent / f"{page.stem}_{picture.name}", picture.read_bytes())
    write_file(page, whole)


def machine(environment: Mapping[str, Any]) -> str:
    """When and on what it was measured, in a line."""
    memory = environment["memory_bytes"]
    parts = [
        f"Measured {str(environment['measured_at'])[:10]}",
        f"{environment['processor']}, {environment['cores']} cores"
        + (f", {memory / 2**30:.0f} GiB" if memory else ""),
        f"Tritier {environment['tritier']}, Python {environment['python']}",
    ]
    return "; ".join(parts) + "."
