"""Which part of the project may import which (design, section 2)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tritier
from tritier.resources import triton_dir

ROOT = Path(tritier.__file__).parent
BASE = {"errors", "files", "resources", "documents"}
STAGES = {
    "graph", "calibration", "planner", "divider", "repository", "pool", "deployment", "network",
    "timing", "noise",
}  # fmt: skip
WORKFLOW = BASE | STAGES
# Folder or module of the package -> what of the package it may import besides itself.
ALLOWED = {
    "__init__": set[str](),
    "__main__": {"cli"},
    "errors": set[str](),
    "resources": set[str](),
    "files": {"errors"},
    "documents": {"errors"},
    "graph": BASE,
    "planner": {"errors", "documents"},
    "divider": BASE | {"graph"},
    "calibration": BASE | {"graph"},
    "vision": {"errors", "documents"},
    "repository": BASE,
    "pool": BASE,
    "deployment": BASE | {"repository"},
    "network": BASE | {"deployment"},
    "export": BASE | {"deployment", "repository"},
    "timing": BASE,
    "noise": BASE | {"graph", "calibration", "divider"},
    "bench": BASE | {"deployment", "graph", "divider"},
    "costs": BASE | {"planner"},
    "report": BASE | {"graph", "repository"},
    "doctor": BASE | {"bench", "deployment", "graph", "planner", "repository"},
    "workflow": WORKFLOW | {"costs"},
    "demo": WORKFLOW | {"workflow"},
    "cli": WORKFLOW
    | {"workflow", "demo", "vision", "bench", "costs", "report", "doctor", "export"},
}
# What the planner may use of all else: nothing that reads, writes or talks; a clock for limits.
PURE = {
    "__future__", "collections", "contextlib", "dataclasses", "enum", "fnmatch", "functools",
    "heapq", "itertools", "math", "networkx", "numpy", "operator", "pulp", "re", "time", "typing",
}  # fmt: skip
OPENERS = {"open", "print", "input", "exec", "eval", "__import__"}


def sources() -> list[Path]:
    """All modules of the package."""
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    """The folder, or the module, of the package in which a file lies."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imported modules, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            # `from tritier import cli` and `from tritier.deployment import process`
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_imported(tree: ast.AST) -> set[str]:
    """The parts of the package that a module imports. `import tritier` is for the version."""
    names = [name.split(".") for name in imports(tree)]
    return {name[1] for name in names if name[0] == "tritier" and len(name) > 1}


def broken_rules(path: Path, text: str) -> list[str]:
    """What a module imports and must not."""
    part = part_of(path)
    tree = ast.parse(text)
    if part not in ALLOWED:
        return [f"{part}: is new: say in ALLOWED what it may import"]
    bad = parts_imported(tree) - ALLOWED[part] - {part}
    faults = [f"{part} must not import {name}" for name in sorted(bad)]
    if part == "planner":
        used = {name.split(".")[0] for name in imports(tree)}
        faults += [f"planner must not import {x}" for x in sorted(used - PURE - {"tritier"})]
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        faults += [f"planner must not call {name}" for name in sorted(calls & OPENERS)]
    return faults


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_rules(path: Path) -> None:
    assert broken_rules(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "path",
    sorted(triton_dir().rglob("*.py")),
    ids=lambda path: str(path.relative_to(triton_dir())),
)
def test_what_runs_in_triton_needs_nothing_of_the_package(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert "tritier" not in used


def test_nothing_but_the_entry_point_imports_the_command_line() -> None:
    users = {name for name, allowed in ALLOWED.items() if "cli" in allowed}
    assert users == {"__main__"}


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("planner/x.py", "import os", "planner must not import os"),
        ("planner/x.py", "def f():\n    import pathlib", "planner must not import pathlib"),
        ("planner/x.py", "from tritier.files import write_file", "planner must not import files"),
        ("planner/x.py", "from tritier import graph", "planner must not import graph"),
        ("planner/x.py", "open('x')", "planner must not call open"),
        ("divider/x.py", "import tritier.repository", "divider must not import repository"),
        ("documents/x.py", "from tritier.graph import x", "documents must not import graph"),
        ("graph/x.py", "if 1:\n    import tritier.cli.plan", "graph must not import cli"),
        ("brand_new/x.py", "", "brand_new: is new: say in ALLOWED what it may import"),
    ],
)
def test_a_broken_rule_is_found(file: str, text: str, fault: str) -> None:
    assert fault in broken_rules(ROOT / file, text)
