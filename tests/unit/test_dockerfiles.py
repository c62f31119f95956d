"""The images: built by nobody here, but read by Docker's own parser and compared with the code."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import dockerfile
import pytest

from tritier.deployment.versions import SECURITY_RELEASE
from tritier.export.tiers import PROGRAMS_DIR
from tritier.resources import triton_dir

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
SERVER = FOLDER / "tritonserver.Dockerfile"
LINKS = FOLDER / "links.Dockerfile"
PINNED = {
    line.partition("==")[0].lower().replace("_", "-")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
}


def commands(path: Path, name: str) -> list[dockerfile.Command]:
    """All instructions of that name."""
    return [c for c in dockerfile.parse_string(path.read_text()) if c.cmd.lower() == name]


def arguments(path: Path, name: str) -> list[str]:
    """The words of the instructions of that name."""
    return [word for command in commands(path, name) for word in command.value]


def test_there_is_one_for_each_role() -> None:
    assert [path.name for path in FILES] == [
        "links.Dockerfile", "loadtests.Dockerfile", "tritier.Dockerfile", "tritonserver.Dockerfile",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_instructions_are_known_and_in_order(path: Path) -> None:
    """The parser takes any word for an instruction."""
    known = {"arg", "from", "copy", "run", "env", "user", "expose", "healthcheck", "cmd",
             "workdir", "entrypoint"}  # fmt: skip
    names = [c.cmd.lower() for c in dockerfile.parse_string(path.read_text())]
    assert set(names) <= known
    assert names[:2] == ["arg", "from"]
    flags = {f.split("=")[0] for c in commands(path, "healthcheck") for f in c.flags}
    assert flags <= {"--interval", "--timeout", "--start-period", "--retries"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_images_are_confined_and_checked(path: Path) -> None:
    last = [c.cmd.lower() for c in dockerfile.parse_string(path.read_text())]
    # tc needs a capability, which only root has: see test_export_links.py.
    user = "0:0" if path == LINKS else "1000:1000"
    assert commands(path, "user")[-1].value == (user,)
    # Nothing is installed or copied after the user has changed.
    assert not {"run", "copy"} & set(last[last.index("user") :])
    assert commands(path, "healthcheck")
    assert not commands(path, "add")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_base_images_are_pinned(path: Path) -> None:
    releases = dict(word.split("=", 1) for word in arguments(path, "arg"))
    for command in commands(path, "from"):
        image = re.sub(r"\$\{(\w+)\}", lambda found: releases[found[1]], command.value[0])
        name, _, tag = image.rpartition(":")
        assert name in ("python", "nvcr.io/nvidia/tritonserver")
        assert re.fullmatch(r"\d+\.\d+-(slim|py3|py3-sdk)", tag)
        if "tritonserver" in name:
            assert releases["TRITON_RELEASE"] == SECURITY_RELEASE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_installs_are_pinned_and_copies_exist(path: Path) -> None:
    installs = [text for text in arguments(path, "run") if " install " in text]
    assert len(installs) == 1
    if path == LINKS:  # of the distribution, at the version that it has
        assert "iproute2" in installs[0]
        assert "pip" not in installs[0]
    else:
        assert "--constraint" in installs[0]
        assert "--no-cache-dir" in installs[0]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for command in commands(path, "copy"):
        if any(flag.startswith("--from") for flag in command.flags):
            continue
        for source in command.value[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == x[1:] or source.startswith(f"{x[1:]}/")
                       for x in ignored if x.startswith("!")), source  # fmt: skip


def test_packaged_data_is_in_the_build() -> None:
    """What the wheel needs is copied, or it could not be built."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("force-include]")[1].split("\n\n")[0]
    needed = {*re.findall(r'^"(\S+)" =', section, re.M), "generator", "README.md", "LICENSE"}
    for name in ("tritier.Dockerfile", "loadtests.Dockerfile"):
        sources = {word for c in commands(FOLDER / name, "copy") for word in c.value[:-1]}
        assert needed <= sources


def test_the_server_image_has_what_the_models_import() -> None:
    required = {
        re.split(r"[\[#=]", line)[0].strip()
        for line in (FOLDER / "tritonserver.requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert required <= PINNED
    names = {"grpc": "grpcio", "numpy": "numpy", "onnxruntime": "onnxruntime",
             "tritonclient": "tritonclient"}  # fmt: skip
    # Of Triton, of the optional GPU package, and of the lab's tool.
    elsewhere = {"triton_python_backend_utils", "pynvml"}
    own = {path.stem for path in triton_dir().rglob("*.py")}
    imported = {
        name
        for path in triton_dir().rglob("*.py")
        for name in _imports(path)
        if name not in sys.stdlib_module_names and name not in own | elsewhere
    }
    assert {names[name] for name in imported} == required


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_programs_lie_where_the_commands_expect_them() -> None:
    copied = [c.value for c in commands(SERVER, "copy") if f"{PROGRAMS_DIR}/" in c.value]
    names = {Path(source).name for value in copied for source in value[:-1]}
    assert {"hidden_key.py", "ready.py"} <= names


def test_exec_form_everywhere_but_in_run() -> None:
    for path in FILES:
        for name in ("cmd", "entrypoint"):
            for command in commands(path, name):
                assert command.json, f"{path.name}: {command.original}"
    (check,) = commands(SERVER, "healthcheck")
    assert json.loads(check.original[check.original.index("[") :])[0] == "python3"
