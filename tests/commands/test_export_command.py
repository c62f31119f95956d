"""`tritier export compose` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.exported import repositories
from tritier.cli import main

SERVERS = """
servers:
  - {name: a, tier: device, entry: true}
  - {name: b, tier: edge, memory_mib: 700}
  - {name: c, tier: cloud}
"""
PROTECTED = f"""{SERVERS}
security: {{admin_key_file: keys/admin.key}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    repositories(tmp_path)
    (tmp_path / "servers.yaml").write_text(SERVERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["export", "compose", "repos", "--servers", "servers.yaml", "-o", "out", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_is_listed_is_what_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json", "--dry-run") == 0
    promised = json.loads(capsys.readouterr().out)["files"]
    assert not (folder / "out").exists()
    assert run("--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["files"] == promised
    assert written(folder / "out") == sorted([*promised, "export.json"])
    assert f"wrote {len(promised) + 1} files to out" in output.err


def test_an_export_is_only_replaced_when_that_is_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert run() == 3
    assert run("--dry-run") == 3
    assert "out is not empty: choose another folder or pass --force" in capsys.readouterr().err
    before = written(folder / "out")
    (folder / "out" / "secrets" / "admin_key").write_text("k")
    assert run("--force") == 0
    assert written(folder / "out") == sorted([*before, "secrets/admin_key"])


def test_it_says_where_files_with_secrets_belong(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "servers.yaml").write_text(PROTECTED)
    assert run() == 0
    said = capsys.readouterr().err
    assert f"put {folder}/keys/admin.key into out/secrets/admin_key" in said.replace("\n", " ")
    assert written(folder / "out" / "secrets") == [".gitignore"]


def test_image_and_shared_memory_are_chosen(folder: Path) -> None:
    assert run("--image", "ours:1", "--shm-mib", "256") == 0
    text = (folder / "out" / "compose.yaml").read_text()
    assert text.count("image: ours:1\n") == 3
    assert text.count('shm_size: "256m"') == 3
    assert f'memory: "{700 * 2**20}b"' in text
    assert run("--shm-mib", "1", "--force") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--network", "gone.json"], "gone.json: no such file: give a network state"),
        (["--network", "servers.yaml"], "servers.yaml"),
        (["--servers", "gone.yaml"], "gone.yaml"),
    ],
)
def test_bad_files_are_told_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert run(*words) == 3
    assert expected in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_repositories_that_were_changed_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = next((folder / "repos" / "b").rglob("config.pbtxt"))
    config.write_text(config.read_text() + "\n")
    assert run() == 3
    assert "is not the file that was generated: generate again" in capsys.readouterr().err
