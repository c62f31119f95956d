"""The only place that prints: data on stdout, messages and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_messages = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """A message for people, on stderr."""
    _messages.print(Text(message))


def show_json(data: Any) -> None:
    """A result for programs, on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def show_text(text: str) -> None:
    """A result for people, on stdout."""
    sys.stdout.write(text + "\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout. Columns whose values are all numbers stand to the right; what is no
    terminal gets a width at which nothing is cut off."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(str(row[index])) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Report of a longer job: one line that changes on a terminal, else a line per step."""
    if not _messages.is_terminal:
        say(f"{what} ...")
        yield lambda step: say(f"  {step}")
        return
    with _messages.status(f"{what} ...") as status:
        yield lambda step: status.update(f"{what}: {step}")


@contextmanager
def progress_of_several(
    what: str, names: Sequence[str]
) -> Iterator[Callable[[str, str, float], None]]:
    """Report (name, step, share of it that is done) of jobs that run side by side: a bar for each
    on a terminal, else a line per step."""
    if not _messages.is_terminal:
        say(f"{what} ...")
        last: dict[str, str] = {}

        def tell(name: str, step: str, _share: float) -> None:
            if last.get(name) != step:
                last[name] = step
                say(f"  {name}: {step}")

        yield tell
        return
    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_messages) as bars:
        tasks = {name: bars.add_task("waits", total=1.0, name=name) for name in names}
        yield lambda name, step, share: bars.update(tasks[name], description=step, completed=share)


def size_text(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "?"
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1024:,.0f} KiB" if count < 10 * 1024**2 else f"{count / 1024**2:,.1f} MiB"


def _is_number(text: str) -> bool:
    first = text.split(" ")[0].replace(",", "")
    try:
        float(first)
    except ValueError:
        return text in ("", "-", "?")
    return True
