"""What the Python models import and call, against what the stock image has."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tritier.doctor.releases import ReleaseTable, has, since
from tritier.doctor.subjects import Subject
from tritier.documents import PortabilityFinding, ReleaseFacts

_UTILS = "triton_python_backend_utils"
_UTILS_NAME = "pb_utils"
DOCKERFILE = "docker/tritonserver.Dockerfile"


def imported_modules(files: Iterable[Path]) -> set[str]:
    """Top-level modules that these files import, without each other and the standard library."""
    files = list(files)
    found = {name.split(".")[0] for file in files for name in _imports(_tree(file))}
    return found - {file.stem for file in files} - set(sys.stdlib_module_names) - {_UTILS}


def called_api(files: Iterable[Path]) -> set[str]:
    """Names of Triton's Python API that these files use: `Tensor`, `request.is_cancelled`, ..."""
    found = set()
    for file in files:
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == _UTILS_NAME:
                    found.add(node.attr)
                elif node.value.id == "request" and isinstance(node.ctx, ast.Load):
                    found.add(f"request.{node.attr}")
    return found


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
    for server in dict.fromkeys(item.row.server for item in models):
        for module, count in sorted(_imported_by_each(models, server).items()):
            known = table.packages.get(module)
            if known is not None and known.in_image:
                continue
            package = known.distribution if known else module
            unknown = "" if known else ", and the release table does not know it"
            yield PortabilityFinding(
                level="warning",
                server=server,
                model=None,
                field=f"import {module}",
                why=f"{count} Python models need it; the stock image of {facts.release} does not "
                f"have it{unknown}",
                fix=f"in the image: pip install '{package}' (Python {facts.python}); "
                f"{DOCKERFILE} does",
            )


def _imported_by_each(models: list[Subject], server: str) -> Counter[str]:
    """Module -> how many models of the server import it. Models are looked at one by one: a module
    of one is no module of another."""
    own = (item.modules for item in models if item.row.server == server)
    return Counter(name for files in own for name in imported_modules(files))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _tree(file: Path) -> ast.AST:
    return ast.parse(file.read_text(encoding="utf-8"), filename=file.name)


def _type_name(subject: Subject, number: int) -> str:
    enum = subject.config.DESCRIPTOR.file.enum_types_by_name["DataType"]
    return str(enum.values_by_number[number].name)
