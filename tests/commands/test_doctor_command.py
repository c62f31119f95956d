"""`tritier doctor` on the machine that runs the tests, and on repositories."""

from __future__ import annotations

import json
import mmap
import re
import secrets
import shlex
import shutil
from pathlib import Path

import pytest

from tests.helpers.portable import replaced, written
from tritier.cli import main
from tritier.doctor import shm
from tritier.documents import DoctorReport, PortabilityReport

Capture = pytest.CaptureFixture[str]
ENTRY = "device/golden"


def run(capsys: Capture, *arguments: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of `tritier doctor`."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, arguments)])
    told = capsys.readouterr()
    assert ended.value.code == code, told.err
    return told.out, told.err


def test_this_machine_can_run_the_demo(capsys: Capture) -> None:
    out, _ = run(capsys, "--json")
    report = DoctorReport.from_data(json.loads(out))
    assert report.can_run_demo
    checks = {check.name: check for check in report.checks}
    assert checks["embedded tritonserver"].found.startswith("tritonserver 2.51.0 (24.10)")
    assert checks["age of tritonserver"].status == "warning"
    assert {check.status for check in report.checks if check.demo} <= {"ok", "warning"}
    assert len(checks) == len(report.checks) > 20


def test_each_fix_is_a_command(capsys: Capture) -> None:
    out, _ = run(capsys, "--json")
    report = DoctorReport.from_data(json.loads(out))
    for check in report.checks:
        assert check.status != "missing" or check.fix, check
        if check.fix:
            program = shlex.split(check.fix)[0]
            known = ("tritier", "sudo", "ulimit", "rm")
            assert program in known or shutil.which(program), check.fix


def test_the_table_says_the_same(capsys: Capture) -> None:
    data = json.loads(run(capsys, "--json")[0])
    out, err = run(capsys)
    for check in data["checks"]:
        assert check["name"] in out
        if "fix" in check and not check["fix"].startswith("rm "):
            assert check["fix"] in err
    assert "`tritier demo` can run here" in err


def test_shared_memory_that_a_process_holds_is_not_left_over() -> None:
    path = shm.SHARED_MEMORY / f"tritier_{secrets.token_hex(4)}_held"
    path.write_bytes(b"x" * 4096)
    try:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
            file.close()  # Triton does: what stays is the mapping
            assert path.name not in left_over()
        assert path.name in left_over()
    finally:
        path.unlink()


def left_over() -> set[str]:
    """Names of own files in shared memory that doctor would remove."""
    entries, mapped = shm.own_entries(), shm.mapped_names()
    return {x for x in entries if shm.check_leftovers({x: entries[x]}, mapped).status != "ok"}


def test_repositories(capsys: Capture, tmp_path: Path) -> None:
    repos = written("family", tmp_path / "repos")
    out, err = run(capsys, repos, "--target", "26.06", "--json")
    report = PortabilityReport.from_data(json.loads(out))
    assert (report.errors, report.target.onnxruntime) == (0, "1.24.4")
    out, err = run(capsys, repos, "--target", "26.06")
    assert "nothing was run there" in out
    assert re.search(r"0 x error, \d+ x warning, \d+ x info", err)


def test_errors_have_the_code_of_a_failed_check(capsys: Capture, tmp_path: Path) -> None:
    repos = written("two_servers", tmp_path / "repos")
    new = "ensemble_scheduling {\n max_inflight_requests: 4"
    replaced(repos, ENTRY, "ensemble_scheduling {", new)
    out, err = run(capsys, repos, "--target", "25.10", code=1)
    assert "max_inflight_requests" in out
    assert "1 x error: these repositories would not run on 25.10" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--target", "26.06"], 2, "--target is for repositories"),
        (["."], 2, "REPOS needs the release"),
        ([".", "--target", "26.06"], 3, "has no manifest.json"),
        ([".", "--target", "24.01"], 3, "the nearest are 25.01, 25.02, 25.03"),
    ],
)
def test_wrong_usage_is_told(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str],
    code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    _, err = run(capsys, *arguments, code=code)
    assert said in err
