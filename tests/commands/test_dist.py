"""`make dist`: the same bytes everywhere, and in them what an install needs and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

import tritier

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "build_dist.py"
NAME = f"tritier-{tritier.__version__}"
# Folders of the tree -> where tritier.resources finds them in an install.
DATA = {
    "model_repository_templates": "tritier/_data/model_repository_templates",
    "triton": "tritier/_data/triton",
    "loadtests": "tritier/_data/loadtests",
    "examples/super_resolution": "tritier/_data/examples/super_resolution",
}
WRITTEN = {"METADATA", "WHEEL", "RECORD", "entry_points.txt"}  # by the build, into dist-info
EXTRAS = {"embedded", "gpu", "loadtest", "demo", "vision", "plots", "report", "docs", "dask", "dev"}
_ZIP_TICK_S = 2.1  # a zip keeps times to two seconds

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None,
    reason="needs a git checkout: what is built is what git tracks",
)


@dataclass(frozen=True)
class Build:
    """What one run of the script wrote, and where it worked."""

    work: Path
    wheel: Path
    sdist: Path

    def in_wheel(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def in_sdist(self) -> dict[str, bytes]:
        with tarfile.open(self.sdist) as archive:
            files = [item for item in archive.getmembers() if item.isfile()]
            found = {item.name: archive.extractfile(item) for item in files}
            return {name: file.read() for name, file in found.items() if file is not None}

    def metadata(self) -> Message:
        return BytesParser().parsebytes(self.in_wheel()[f"{NAME}.dist-info/METADATA"])


def build(folder: Path, umask: int) -> Build:
    """The tree as it is, built below a folder."""
    work, output = folder / "work", folder / "dist"
    work.mkdir(parents=True)
    subprocess.run(
        [sys.executable, SCRIPT, output, "--with-changes"],
        env={**os.environ, "TMPDIR": str(work)}, cwd=folder, umask=umask, check=True,
    )  # fmt: skip
    assert list(work.iterdir()) == []
    (wheel,), (sdist,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return Build(work, wheel, sdist)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Build, Build]:
    """Two builds: in other folders, at another time, by a user with other default permissions."""
    started = time.monotonic()
    first = build(tmp_path_factory.mktemp("first"), 0o022)
    time.sleep(max(0.0, started + _ZIP_TICK_S - time.monotonic()))
    return first, build(tmp_path_factory.mktemp("second") / "further" / "down", 0o077)


def tracked(folder: str) -> list[str]:
    """Paths below a folder of the tree that git tracks, relative to the tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


def test_two_builds_give_the_same_bytes(builds: tuple[Build, Build]) -> None:
    first, second = builds
    assert first.wheel.name == second.wheel.name == f"{NAME}-py3-none-any.whl"
    assert first.sdist.name == second.sdist.name == f"{NAME}.tar.gz"
    assert first.wheel.read_bytes() == second.wheel.read_bytes()
    assert first.sdist.read_bytes() == second.sdist.read_bytes()


def test_the_wheel_has_the_package_and_its_data_and_nothing_else(
    builds: tuple[Build, Build],
) -> None:
    wanted = {name.removeprefix("generator/"): ROOT / name for name in tracked("generator/tritier")}
    for folder, place in DATA.items():
        names = tracked(folder)
        assert names
        wanted |= {f"{place}{name.removeprefix(folder)}": ROOT / name for name in names}
    wanted[f"{NAME}.dist-info/licenses/LICENSE"] = ROOT / "LICENSE"
    found = builds[0].in_wheel()
    assert set(found) == set(wanted) | {f"{NAME}.dist-info/{name}" for name in WRITTEN}
    assert {name: found[name] for name in wanted} == {
        name: path.read_bytes() for name, path in wanted.items()
    }


def test_the_sdist_has_tracked_files_only(builds: tuple[Build, Build]) -> None:
    found = builds[0].in_sdist()
    names = {name.removeprefix(f"{NAME}/") for name in found} - {"PKG-INFO"}
    assert names < set(tracked("."))
    assert {f"{NAME}/{name}" for folder in DATA for name in tracked(folder)} < set(found)
    for name in names:
        assert found[f"{NAME}/{name}"] == (ROOT / name).read_bytes(), name


def test_no_path_of_this_machine_and_no_bytecode_gets_in(builds: tuple[Build, Build]) -> None:
    for made in builds:
        files = made.in_wheel() | made.in_sdist()
        assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]
        assert not [name for name, data in files.items() if str(made.work).encode() in data]
        written = [
            data for name, data in files.items() if Path(name).name in {*WRITTEN, "PKG-INFO"}
        ]
        assert len(written) == len(WRITTEN) + 1
        for path in (ROOT, Path(sys.prefix)):
            assert not [data for data in written if str(path).encode() in data]


def test_permissions_and_dates_are_those_of_the_commit(builds: tuple[Build, Build]) -> None:
    shown = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    epoch = int(shown.stdout)
    with tarfile.open(builds[1].sdist) as archive:
        assert {(item.mtime, item.uid, item.uname) for item in archive} == {(epoch, 0, "")}
        assert {item.mode & 0o777 for item in archive if item.isfile()} <= {0o644, 0o755}
    with zipfile.ZipFile(builds[1].wheel) as wheel:
        items = wheel.infolist()
        assert {item.date_time for item in items} == {time.gmtime(epoch - epoch % 2)[:6]}
        assert {item.external_attr >> 16 & 0o777 for item in items} <= {0o644, 0o755}


def test_the_sdist_builds_the_same_wheel(builds: tuple[Build, Build], tmp_path: Path) -> None:
    made = builds[0]
    with tarfile.open(made.sdist) as archive:
        epoch = max(int(item.mtime) for item in archive)
        archive.extractall(tmp_path / "sdist", filter="data")
    subprocess.run(
        [
            sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "again",
            f"sdist/{NAME}",
        ],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}, cwd=tmp_path, check=True,
        capture_output=True,
    )  # fmt: skip
    assert (tmp_path / "again" / made.wheel.name).read_bytes() == made.wheel.read_bytes()


def test_metadata_is_complete(builds: tuple[Build, Build]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = builds[0].metadata()
    assert metadata["Name"] == "tritier"
    assert metadata["Version"] == project["version"] == tritier.__version__
    assert metadata["Summary"] == project["description"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == (ROOT / "README.md").read_bytes()
    assert metadata.get_all("Classifier") == sorted(project["classifiers"])
    assert set(metadata.get_all("Provides-Extra") or ()) == EXTRAS
    assert set(project["optional-dependencies"]) == EXTRAS
    required = metadata.get_all("Requires-Dist") or []
    assert len([text for text in required if "extra ==" not in text]) == len(
        project["dependencies"]
    )
    # Nobody's address is in it: the project has no public home yet.
    assert not [text for text in required if "://" in text]
    for key in ("Home-page", "Download-URL", "Project-URL", "Author-email", "Maintainer-email"):
        assert metadata.get_all(key) is None, key


def test_the_console_script_is_there(builds: tuple[Build, Build]) -> None:
    written = builds[0].in_wheel()[f"{NAME}.dist-info/entry_points.txt"].decode()
    assert written.split("\n")[:2] == ["[console_scripts]", "tritier = tritier.cli:main"]


def test_what_no_commit_has_is_not_built_unasked(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPT, tree / "scripts")
    git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run([*git, *words], check=True)
    (tree / "forgotten.py").write_text("")
    done = subprocess.run(
        [sys.executable, tree / "scripts" / SCRIPT.name, tmp_path / "dist"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "forgotten.py" in done.stderr
    assert "--with-changes" in done.stderr
    assert not (tmp_path / "dist").exists()
