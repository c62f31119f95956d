"""`docs/commands.md`: every command and option, read from the command line itself."""

from __future__ import annotations

import enum
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tritier.cli import app

_HEAD = """\
# Commands

Made by `make regen` from the command line itself, and compared with it by a test. `tritier COMMAND
--help` prints the same. Every option can also be set in `tritier.yaml` (command, then option, see
[documents.md](documents.md#tritieryaml)) and by an environment variable: `TRITIER_`, the command
and the option in capitals, with `_` for `-` and blanks (`TRITIER_LAB_UP_SERVERS`).
"""
_NOT_RUN = "<!-- not run: an example of --help, whose files are not there -->"
_VERBATIM = "\b"  # click's mark before a paragraph that is not to be wrapped

# Commands are typed Any: click's classes come from click itself or from a copy inside typer.


def command_page() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    context = _context(root, "tritier", None)
    parts = [_HEAD, "## tritier\n", *_command(root, context)]
    for name, command, inner in _commands(root, context):
        parts += [f"## {name}\n", *_command(command, inner)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.context_class(command, info_name=name, parent=parent)


def _commands(group: Any, context: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name (`lab up`), command and context of all that is not a group, in the order of --help."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = _context(command, name, context)
        if hasattr(command, "commands"):
            yield from _commands(command, inner, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command, inner


def _command(command: Any, context: Any) -> Iterator[str]:
    """Usage, text, arguments, options and examples, each with an empty line after it."""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    texts, examples = _help(command.help or "")
    yield from (f"{text}\n" for text in texts)
    shown = [item for item in command.params if not getattr(item, "hidden", False)]
    arguments = [item for item in shown if item.param_type_name == "argument"]
    options = [item for item in shown if item.param_type_name == "option"]
    yield from _table("argument", [(_argument(x), x.help or "") for x in arguments])
    yield from _table("option", [(_option(x, context), _meaning(x, context)) for x in options])
    if examples:
        lines = "\n".join(f"$ {line}" for line in examples)
        yield f"{_NOT_RUN}\n```console\n{lines}\n```\n"


def _help(text: str) -> tuple[list[str], list[str]]:
    """Paragraphs, and the command lines of the examples."""
    paragraphs, examples = [], []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line for line in block.splitlines() if line != _VERBATIM]
        if lines[0].strip() == "Examples:":
            examples = _examples(lines[1:])
        elif block.startswith(_VERBATIM):
            paragraphs.append("```text\n" + "\n".join(lines) + "\n```")
        else:
            paragraphs.append(wrapped(block))
    return paragraphs, examples


def _examples(lines: list[str]) -> list[str]:
    """Command lines, of which one that goes on is one text with line ends."""
    found: list[str] = []
    for line in lines:
        if found and found[-1].endswith("\\"):
            found[-1] += f"\n      {line.strip()}"
        else:
            found.append(line.strip())
    return found


def _table(what: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    if rows:
        lines = [f"| {name} | {plain(text)} |" for name, text in rows]
        yield "\n".join([f"| {what} | |", "|---|---|", *lines, ""])


def _argument(argument: Any) -> str:
    name = argument.display_name_raw + ("..." if argument.nargs != 1 else "")
    return f"`{name}`" if argument.required else f"`[{name}]`"


def _option(option: Any, context: Any) -> str:
    """Its names, and what it takes: `FILE`, `N`, or the words that are allowed."""
    names = [*option.opts, *option.secondary_opts]
    if not (option.is_flag or option.count):
        names[-1] += f" {option.display_type_rich(context)}"
    return ", ".join(f"`{name}`" for name in names).replace("|", "\\|")


def _meaning(option: Any, context: Any) -> str:
    """Its help, that it is required, its default."""
    text = (option.help or "").strip()
    if option.required:
        return f"{text} Required."
    default = _default(option.get_default(context, call=False))
    return f"{text} Default: `{default}`." if default else text


def _default(value: object) -> str:
    """What is worth showing: not the absence of a value, and not that a flag is not set."""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Path):
        return ""
    return str(value)


def wrapped(text: str) -> str:
    """A paragraph in lines of the usual length."""
    lines = textwrap.wrap(plain(text), 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text in which, outside `code`, nothing is Markdown; fit for a cell of a table."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    escaped = (
        part if part.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts
    )
    return "".join(escaped).replace("|", "\\|")
