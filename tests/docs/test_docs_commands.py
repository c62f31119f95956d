"""Every command in every page exists, with all its options."""

from __future__ import annotations

import re

import pytest

from tests.docs.command_lines import calls, faults_of
from tests.docs.pages import Block, blocks, inline_code, pages


@pytest.mark.parametrize("page", pages())
def test_commands_in_blocks_exist(page: str) -> None:
    faults = [
        f"{block.where}: {fault}"
        for block in blocks(page)
        for command in block.commands
        for arguments in calls(command)
        for fault in faults_of(arguments)
    ]
    assert faults == []


@pytest.mark.parametrize("page", pages())
def test_options_in_the_text_exist(page: str) -> None:
    """In a text a command stands for itself: arguments may be left out."""
    faults = []
    for code in inline_code(page):
        if re.match(r"tritier [a-z]", code) and "|" not in code:
            arguments = next(iter(calls(f"{code} ...")))
            faults += [f"{page}: `{code}`: {fault}" for fault in faults_of(arguments)]
    assert [x for x in faults if "requires an argument" not in x] == []


def test_commands_are_found() -> None:
    found = [c for page in pages() for block in blocks(page) for c in block.commands]
    assert sum(1 for command in found for _ in calls(command)) > 150


def block(text: str, language: str = "console") -> Block:
    return Block("page.md", 1, language, text, False, "")


def test_command_lines_are_told_from_output() -> None:
    text = (
        "$ tritier plan m.onnx \\\n      -o plan.json\nwritten\nfirst$ ls\n$ f() {\n  x\n  }\n  y\n"
    )
    assert block(text).commands == [
        "tritier plan m.onnx \\\n      -o plan.json",
        "ls",
        "f() {\n  x\n  }",
    ]
    assert block("a\n\nb \\\n  c\n", "sh").commands == ["a", "b \\\n  c"]


def test_calls_are_found_wherever_they_stand_in_a_line() -> None:
    assert list(calls("A=1 tritier lab up && .venv/bin/tritier plan x | cat  # tritier no")) == [
        ["lab", "up"],
        ["plan", "x"],
    ]
    assert list(calls("grep tritier file")) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("inspect model.onnx", ""),
        ("inspect model.onnx --dim a=1 --dim b=2", ""),
        ("inspect ... --json", ""),
        ("lab up --servers servers.yaml", ""),
        ("lab", ""),
        ("--workspace x pool list", ""),
        ("inspct model.onnx", "no command"),
        ("lab upp", "no command"),
        ("inspect model.onnx --jsn", "--jsn"),
        ("inspect", "is missing"),
        ("lab up", "is missing"),
        ("inspect a.onnx b.onnx", "too many"),
        ("inspect model.onnx --dim", "--dim"),
        ("prepare model.onnx --input-codec uint9", "allowed are"),
    ],
)
def test_a_wrong_command_is_found(line: str, fault: str) -> None:
    found = faults_of(line.split())
    assert bool(found) == bool(fault)
    assert fault in " ".join(found)
