"""What the Python models import and call, against what the stock image has."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tritier.doctor.releases import ReleaseTable, has, since
from tritier.doctor.subjects import Subject
from tritier.documents import PortabilityFinding, ReleaseFacts
from tritier.documents.doctor import FindingLevel
from tritier.resources import triton_dir

_UTILS = "triton_python_backend_utils"
_UTILS_NAME = "pb_utils"
# What is pushed to a server as the agent.
_AGENT = ("models/agent", "shared")
DOCKERFILE = "docker/tritonserver.Dockerfile"


@dataclass(frozen=True)
class ModuleFacts:
    """What stands in a module: top-level names that it imports, names of Triton's Python API that
    it uses (`Tensor`, `request.is_cancelled`, ...)."""

    imports: frozenset[str]
    api: frozenset[str]


def imported_modules(files: Iterable[Path]) -> set[str]:
    """Top-level modules that these files import, without each other and the standard library."""
    files = list(files)
    found = {name for file in files if (facts := _facts(file)) for name in facts.imports}
    return found - {file.stem for file in files} - set(sys.stdlib_module_names) - {_UTILS}


def called_api(files: Iterable[Path]) -> set[str]:
    """Names of Triton's Python API that these files use."""
    return {name for file in files if (facts := _facts(file)) for name in facts.api}


def python_findings(
    models: Iterable[Subject], table: ReleaseTable, facts: ReleaseFacts
) -> list[PortabilityFinding]:
    """Of all Python models: what they lack, packages once for each server."""
    models = [item for item in models if item.config is not None and item.backend == "python"]
    return [
        *(finding for item in models for finding in _model_findings(item, table, facts.release)),
        *_package_findings(models, table, facts),
    ]


def _model_findings(
    subject: Subject, table: ReleaseTable, target: str
) -> Iterator[PortabilityFinding]:
    if not (subject.folder / "1" / "model.py").is_file():
        yield subject.says("error", "1/model.py", "is not there", "tritier generate, again")
    for path in subject.modules:
        if _facts(path) is None:
            why = "is not valid Python"
            yield subject.says("error", f"1/{path.name}", why, "tritier generate, again")
    for name in sorted(called_api(subject.modules)):
        first = since(table.python_api, name)
        if first is None and not name.startswith("request."):
            why = f"the release table does not know {_UTILS_NAME}.{name}: nothing is known of it"
            yield subject.says("warning", f"1/*.py: {name}", why, "look it up, add it to the table")
        elif first is not None and not has(first, target):
            why = f"is there from {first} on, not in {target}"
            yield subject.says("error", f"1/*.py: {name}", why, f"take {first} or newer")
    tensors = [*subject.config.input, *subject.config.output]
    for kind in sorted({_type_name(subject, tensor.data_type) for tensor in tensors}):
        first = since(table.python_types, kind)
        if first is None or not has(first, target):
            newer = f"Python models take it from {first} on" if first else "nothing is known of it"
            why = f"{kind} is not known of Python models in {target}: {newer}"
            yield subject.says("error", "data_type", why, f"take {first or 'another type'}")


def _package_findings(
    models: list[Subject], table: ReleaseTable, facts: ReleaseFacts
) -> Iterator[PortabilityFinding]:
    """Once for each server and package; for the agent once."""
    for server in dict.fromkeys(item.row.server for item in models):
        own = [item.modules for item in models if item.row.server == server]
        # One by one: a module of one model is no module of another.
        used = [imported_modules(files) for files in own]
        for package, modules in _lacking(set().union(*used), table).items():
            count = sum(bool(modules & names) for names in used)
            who = f"Python models that need it: {count}"
            yield _lack("warning", server, who, package, modules, table, facts)
    needed = imported_modules(
        path for folder in _AGENT for path in (triton_dir() / folder).glob("*.py")
    )
    for package, modules in _lacking(needed, table).items():
        who = "the agent of `tritier profile`, `monitor` and `servers check` needs it"
        yield _lack("info", None, who, package, modules, table, facts)


def _lacking(modules: set[str], table: ReleaseTable) -> dict[str, set[str]]:
    """Package to install -> modules of it, of those that the image is not known to have."""
    found: dict[str, set[str]] = {}
    for module in sorted(modules):
        known = table.packages.get(module)
        if known is None or not known.in_image:
            found.setdefault(known.distribution if known else module, set()).add(module)
    return found


def _lack(
    level: FindingLevel,
    server: str | None,
    who: str,
    package: str,
    modules: set[str],
    table: ReleaseTable,
    facts: ReleaseFacts,
) -> PortabilityFinding:
    why = (
        f"{who}; the recipe of the stock image (read for {table.image_recipe}) does not install it"
    )
    if not modules & set(table.packages):  # none or all: they are of one package
        why = f"{who}, and the release table does not know it"
    fix = f"in the image: pip install '{package}' (Python {facts.python})"
    known = [table.packages[name] for name in modules if name in table.packages]
    if known and all(item.in_dockerfile for item in known):
        fix += f", as {DOCKERFILE} does"
    names = ", ".join(sorted(modules))
    return PortabilityFinding(
        level=level, server=server, model=None, field=f"import {names}", why=why, fix=fix
    )


def _facts(file: Path) -> ModuleFacts | None:
    """None for what is not Python."""
    try:
        return _facts_of(file.read_bytes())
    except (SyntaxError, ValueError):  # also what is no text
        return None


@functools.lru_cache(maxsize=256)  # the models of a server are mostly copies of the same modules
def _facts_of(source: bytes) -> ModuleFacts:
    imports: set[str] = set()
    api: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.split(".")[0])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == _UTILS_NAME:
                api.add(node.attr)
            elif node.value.id == "request":
                api.add(f"request.{node.attr}")
    return ModuleFacts(frozenset(imports), frozenset(api))


def _type_name(subject: Subject, number: int) -> str:
    enum = subject.config.DESCRIPTOR.file.enum_types_by_name["DataType"]
    return str(enum.values_by_number[number].name)
