"""What the golden files must hold, made anew from `input/` and `bad/`.

Golden are: the generated tree of each case (`expected/`), the message of each bad input
(`bad/*/error.txt`, `expected/bad_models.txt`), the program of a tiny placement problem
(`expected/planner_tiny.lp`), what `tritier plan` and `tritier doctor` print (`expected/plan_*.txt`,
`expected/doctor_*.txt`), exported folders (`expected/compose_*`, `expected/kubernetes*`), and the
JSON schemas of the documents (`docs/schemas/`) with the pages of commands and fields. Nothing in
them depends on the machine: the layers are elementwise, so that even the trial of a batch is exact
everywhere.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx.parser

from tests.docs.run_table import what_is_run
from tests.golden import (
    bad_models,
    command_page,
    doctor_text,
    exports,
    field_page,
    kubernetes_tree,
    planner_model,
    planner_text,
)
from tritier import documents
from tritier.documents import (
    Assignment,
    Document,
    Family,
    FamilyClass,
    FamilyPlan,
    NoiseModel,
    Plan,
    Ranges,
    ServersSpec,
    read_data,
)
from tritier.errors import TritierError
from tritier.graph import LoadedModel, load_model
from tritier.repository import MANIFEST_NAME, GenerateOptions, plan_file, write_files
from tritier.workflow import generate, plan_from_assignment
from tritier.workflow.family_generate import generate_family

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INPUT = HERE / "input"
BAD = HERE / "bad"
# Every type that is a file of its own, by what messages call it: `servers file`, `plan`, ...
SCHEMAS: dict[str, type[Document]] = {
    item.title.replace(" ", "_"): item
    for item in vars(documents).values()
    if isinstance(item, type) and issubclass(item, Document) and "title" in vars(item)
    if item is not Document
}
# Pages that are made here as a whole.
PAGES = ("docs/checked_commands.md", "docs/commands.md", "docs/plan_format.md")
# Case -> what is chosen beside the assignment of that name.
CASES = {
    "two_servers": GenerateOptions(with_whole=True),
    "three_servers": GenerateOptions(max_batch_size=0, optimisation="basic", deadline_ms=2500),
    "coded": GenerateOptions(),
}


# Two of the plans above behind a router: one for each class of requests, and the whole model.
FAMILY = "family"


def golden() -> dict[str, bytes]:
    """Path, relative to the checkout -> content of every golden file."""
    files: dict[str, bytes] = {}
    for name in (*CASES, FAMILY):
        tree = without_copies(generated(name))
        files |= {f"tests/golden/expected/{name}/{path}": data for path, data in tree.items()}
    for folder in sorted(BAD.iterdir()):
        files[f"tests/golden/bad/{folder.name}/error.txt"] = error_of(folder).encode() + b"\n"
    files["tests/golden/expected/bad_models.txt"] = bad_models.messages().encode()
    files["tests/golden/expected/planner_tiny.lp"] = planner_model.text().encode()
    files["tests/golden/expected/plan_tables.txt"] = planner_text.tables().encode()
    files["tests/golden/expected/plan_infeasible.txt"] = planner_text.errors().encode()
    files["tests/golden/expected/doctor_machines.txt"] = doctor_text.machines().encode()
    files["tests/golden/expected/doctor_repositories.txt"] = doctor_text.repositories(
        generated("two_servers")
    ).encode()
    for path, data in exports.trees(generated).items():
        files[f"tests/golden/expected/{path}"] = data
    files["tests/golden/expected/export_errors.txt"] = exports.errors(generated).encode()
    files |= _kubernetes()
    schemas = {name: document.model_json_schema() for name, document in SCHEMAS.items()}
    for name, schema in schemas.items():
        files[f"docs/schemas/{name}.json"] = _pretty(schema)
    files["docs/commands.md"] = command_page.command_page().encode()
    files["docs/plan_format.md"] = field_page.field_page(schemas).encode()
    files["docs/checked_commands.md"] = what_is_run().encode()
    return files


def _kubernetes() -> dict[str, bytes]:
    """What `tritier export kubernetes` writes for three servers, and what it refuses."""
    found, servers = generated("three_servers"), ServersSpec.load(INPUT / "servers.yaml")
    folder = "tests/golden/expected/kubernetes"
    tree = kubernetes_tree.tree(found, servers)
    errors = kubernetes_tree.errors(found, servers).encode()
    return {f"{folder}/{path}": data for path, data in tree.items()} | {
        "tests/golden/expected/kubernetes_errors.txt": errors
    }


def committed(root: Path = ROOT) -> dict[str, bytes]:
    """The golden files as they are, with those that should not be there."""
    found = [
        *(root / "tests" / "golden" / "expected").rglob("*"),
        *(root / "tests" / "golden" / "bad").glob("*/error.txt"),
        *(root / "docs" / "schemas").glob("*"),
        *(
            root / "docs" / name
            for name in ("checked_commands.md", "commands.md", "plan_format.md")
        ),
    ]
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(found) if p.is_file()}


def differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """One line for each file that is missing, too many or not the same."""
    lines = [f"missing: {path}" for path in sorted(wanted.keys() - found.keys())]
    lines += [f"too many: {path}" for path in sorted(found.keys() - wanted.keys())]
    both = sorted(found.keys() & wanted.keys())
    return lines + [f"differs: {path}" for path in both if found[path] != wanted[path]]


def generated(name: str) -> dict[str, bytes]:
    """All files of a case."""
    with _model() as model:
        if name == FAMILY:
            return _family(model)
        plan = _plan(model, INPUT / f"{name}.yaml", INPUT / "servers.yaml")
        files, _ = generate(plan, model, CASES[name])
    return files


def _family(model: LoadedModel) -> dict[str, bytes]:
    """Exact requests go to one plan and may fall back to another; the others begin with a third,
    which codes its wires."""
    cases = ("two_servers", "three_servers", "coded")
    plans = [_plan(model, INPUT / f"{case}.yaml", INPUT / "servers.yaml") for case in cases]
    ids = [plan.id for plan in plans]
    parts = [
        FamilyPlan(id=plan.id, file=plan_file(plan.id), servers=tuple(x.name for x in plan.servers))
        for plan in plans
    ]
    exact = FamilyClass(name="exact", plans=(*ids[:2], "whole"), deadline_ms=500, hedge=True)
    quick = FamilyClass(name="quick", plans=(*reversed(ids), "whole"), deadline_ms=2000)
    family = Family(
        model=plans[0].model, plans=tuple(parts), classes=(exact, quick), default_class="quick"
    )
    files, _ = generate_family(family, plans, model, GenerateOptions(with_whole=True))
    return files


def without_copies(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the Python models, which are copies of `triton/models/`, and their manifest rows."""
    kept = {path: data for path, data in files.items() if not path.endswith(".py")}
    manifest = json.loads(kept[MANIFEST_NAME])
    manifest["files"] = [row for row in manifest["files"] if not row["path"].endswith(".py")]
    kept[MANIFEST_NAME] = _pretty(manifest)
    return kept


def error_of(folder: Path) -> str:
    """The message of a folder of bad input; what is not in it is taken from `input/`."""
    with _model() as model, tempfile.TemporaryDirectory() as scratch:
        try:
            if (folder / "model.onnx").exists():
                load_model(folder / "model.onnx")
            elif (folder / "plan.json").exists():
                generate(Plan.load(folder / "plan.json"), model, GenerateOptions())
            elif (folder / "noise.json").exists():
                NoiseModel.load(folder / "noise.json")
            elif (folder / "output").exists():
                output = Path(scratch) / "output"
                shutil.copytree(folder / "output", output)
                write_files({"plan.json": b""}, output, force=False)
            else:
                _plan(model, _own(folder, "assignment.yaml"), _own(folder, "servers.yaml"))
        except TritierError as error:
            text = str(error).replace(f"{folder}/", "").replace(f"{scratch}/", "")
            # In the words of ONNX's own libraries, which change.
            return re.sub(r"readable ONNX model \(.*\)", "readable ONNX model (...)", text)
    raise AssertionError(f"{folder.name} is not refused")


def _own(folder: Path, name: str) -> Path:
    default = {"assignment.yaml": "two_servers.yaml"}.get(name, name)
    return folder / name if (folder / name).exists() else INPUT / default


@contextmanager
def _model() -> Iterator[LoadedModel]:
    """The hand-written model as the file that it would be."""
    proto = onnx.parser.parse_model((INPUT / "model.txt").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "golden.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        yield load_model(path)


def _plan(model: LoadedModel, assignment: Path, servers: Path) -> Plan:
    return plan_from_assignment(
        model,
        Assignment.load(assignment),
        ServersSpec.load(servers),
        ranges=_ranges(model, assignment.with_name(f"{assignment.stem}_ranges.yaml")),
    )


def _ranges(model: LoadedModel, path: Path) -> Ranges | None:
    """The ranges beside an assignment, if it has some."""
    if not path.exists():
        return None
    data = read_data(path)
    head = {"model_sha256": model.sha256, "method": "minmax", "samples": 1}
    return Ranges.from_data({**head, "ranges": data})


def _pretty(data: object) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
