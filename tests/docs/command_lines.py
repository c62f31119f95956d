"""Whether the commands in the pages exist, as the command line itself says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

from tritier.cli import app

_ENDS = re.compile(r"[|&;()<>]+")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
LEFT_OUT = "..."  # stands in the pages for options that were shown before


def calls(command: str) -> Iterator[list[str]]:
    """Arguments of each call of `tritier` in a command line of a shell."""
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not _ENDS.fullmatch(word):
            words.append(word)
            continue
        while words and _SETTING.match(words[0]):
            del words[0]
        if words and Path(words[0]).name == "tritier":
            yield words[1:]
        words = []


def faults_of(arguments: list[str]) -> list[str]:
    """What `tritier` would refuse before it does anything: unknown commands and options, options
    without a value, words that are not among those allowed, arguments too many or missing."""
    command, context = _root(), None
    rest = arguments
    path = "tritier"
    while True:
        context = command.context_class(command, info_name=path, parent=context)
        try:
            values, rest, _ = command.make_parser(context).parse_args(list(rest))
        except Exception as error:  # click's usage errors, wherever typer has them from
            return [f"{path}: {error}"]
        faults = _unfit(command, values, arguments)
        if faults or not hasattr(command, "commands"):
            return [f"{path}: {fault}" for fault in [*faults, *_too_many(command, rest)]]
        if not rest or rest == [LEFT_OUT]:
            return []  # the help of a group, or its name in a text
        inner = command.get_command(context, rest[0])
        if inner is None:
            return [f"{path}: there is no command {rest[0]!r}"]
        command, path, rest = inner, f"{path} {rest[0]}", rest[1:]


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _too_many(command: Any, rest: list[str]) -> list[str]:
    left = [word for word in rest if word != LEFT_OUT]
    return [f"argument {word!r} is too many" for word in left if not hasattr(command, "commands")]


def _unfit(command: Any, values: dict[str, Any], arguments: list[str]) -> list[str]:
    """Values that are missing, or not among the words allowed."""
    faults = []
    # Such as --help and `bench --fetch`: they do their work before anything is asked for.
    eager = any(item.is_eager and values.get(item.name) for item in command.params)
    for item in command.params:
        value = values.get(item.name)
        given = isinstance(value, str | list | tuple | bool | int) and value not in ((), [])
        if item.required and not given and not eager and LEFT_OUT not in arguments:
            faults.append(f"{item.opts[0] if item.opts else item.name} is missing")
        allowed = [_word(choice) for choice in item.type_descriptor.choices or ()]
        for word in value if isinstance(value, list | tuple) else [value]:
            if allowed and isinstance(word, str) and word not in allowed:
                faults.append(f"{item.opts[0]} {word}: allowed are {', '.join(allowed)}")
    return faults


def _word(choice: Any) -> str:
    return str(getattr(choice, "value", choice))
