"""Each check of the machine, on machines that are made up."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tritier.bench.perf_analyzer import Program
from tritier.doctor import embedded_server, host, meters, shm, tools
from tritier.doctor.fixes import own_python, pip_install
from tritier.doctor.report import summed_up
from tritier.documents import MachineCheck

GIB, MIB = 1 << 30, 1 << 20


def told(check: MachineCheck) -> tuple[str, str, bool]:
    """(status, found, whether a fix is given), as the tables below have it."""
    return check.status, check.found, check.fix is not None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 11, 2), ("ok", "3.11.2", False)),
        ((3, 14, 0), ("ok", "3.14.0", False)),
        ((3, 10, 12), ("missing", "3.10.12", True)),
    ],
)
def test_python(version: tuple[int, int, int], expected: tuple[str, str, bool]) -> None:
    assert told(host.check_python(version)) == expected


@pytest.mark.parametrize(("cores", "status"), [(1, "warning"), (2, "ok"), (64, "ok")])
def test_cores(cores: int, status: str) -> None:
    assert host.check_cores(cores).status == status


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (3 * GIB, ("ok", "3.0 of 8.0 GiB available", False)),
        (2 * GIB - 1, ("warning", "2.0 of 8.0 GiB available", True)),
        (GIB - 1, ("missing", "1.0 of 8.0 GiB available", True)),
    ],
)
def test_memory(available: int, expected: tuple[str, str, bool]) -> None:
    assert told(host.check_memory(8 * GIB, available)) == expected


def test_memory_that_is_not_told_keeps_nothing_from_running() -> None:
    assert told(host.check_memory(0, 0)) == ("warning", "this system does not tell", True)


@pytest.mark.parametrize(
    ("soft", "hard", "status", "fix"),
    [
        (20_000, 20_000, "ok", None),
        (-1, -1, "ok", None),
        (512, 4096, "warning", "ulimit -n 1024"),
        (512, -1, "warning", "ulimit -n 1024"),
        (100, 100, "missing", "sudo prlimit --nofile=1024 --pid $$"),
    ],
)
def test_open_files(soft: int, hard: int, status: str, fix: str | None) -> None:
    check = host.check_open_files(soft, hard)
    assert (check.status, check.fix) == (status, fix)


def test_loopback() -> None:
    assert host.check_loopback(None).status == "ok"
    assert told(host.check_loopback("no lo")) == ("missing", "no lo", True)


@pytest.mark.parametrize(
    ("now", "newest", "status"), [(1000.0, 900.0, "ok"), (1000.0, 1000.5, "ok"),
                                  (1000.0, 5000.0, "warning")],
)  # fmt: skip
def test_clock(now: float, newest: float, status: str) -> None:
    assert host.check_clock(now, newest).status == status


@pytest.mark.parametrize(
    ("scope", "fix"),
    [
        (2, "sudo sysctl -w kernel.yama.ptrace_scope=1"),
        (3, "tritier lab up --servers servers.yaml --no-admin-key"),
        (None, "tritier lab up --servers servers.yaml --no-admin-key"),
    ],
)
def test_tracing(scope: int | None, fix: str) -> None:
    assert told(host.check_tracing(None, scope)) == (
        "ok", "a key can be kept out of command lines", False,
    )  # fmt: skip
    check = host.check_tracing("refused", scope)
    assert (check.status, check.found, check.fix) == ("warning", "refused", fix)


def test_a_trial_that_breaks_is_an_obstacle() -> None:
    def broken() -> str | None:
        raise FileNotFoundError(2, "no such file", "/bin/sh")

    assert "the trial broke" in (host.tracing_obstacle(broken) or "")
    assert host.tracing_obstacle(lambda: None) is None


def test_the_restriction_of_the_kernel_is_read(tmp_path: Path) -> None:
    file = tmp_path / "scope"
    assert host.yama_scope(file) is None
    file.write_text("2\n")
    assert host.yama_scope(file) == 2


@pytest.mark.parametrize(
    ("total", "free", "expected"),
    [
        (GIB, GIB, ("ok", "1,024 of 1,024 MiB free", False)),
        (GIB, 100 * MIB, ("warning", "100 of 1,024 MiB free", True)),
        (64 * MIB, 64 * MIB, ("warning", "64 of 64 MiB free", True)),
        (64 * MIB, 40 * MIB, ("missing", "40 of 64 MiB free", True)),
        (0, 0, ("missing", "/dev/shm is not there", True)),
    ],
)
def test_size_of_shared_memory(total: int, free: int, expected: tuple[str, str, bool]) -> None:
    assert told(shm.check_size(total, free)) == expected


def test_leftovers_are_those_of_servers_of_which_nothing_lives() -> None:
    entries = {"tritier_aa11_x": 2 * MIB, "tritier_aa11_y": MIB, "tritier_bb22_x": MIB, "other": 9}
    check = shm.check_leftovers(entries, {"tritier_bb22_of_another_file"})
    assert check.found == "files: 2 (3.0 MiB), of dead servers: 1"
    assert check.fix == "rm -f /dev/shm/tritier_aa11_*"
    assert not check.demo
    everything = shm.check_leftovers(entries, {"tritier_aa11_x", "tritier_bb22_x"})
    assert told(everything) == ("ok", "none", False)


def test_who_holds_shared_memory_is_read_from_processes(tmp_path: Path) -> None:
    memory, process = tmp_path / "shm", tmp_path / "17"
    for folder in (memory, process / "fd"):
        folder.mkdir(parents=True)
    for name in ("tritier_aa_1", "tritier_bb_1", "tritier_cc_1", "else"):
        (memory / name).write_bytes(b"x")
    row = f"7f00-7f10 rw-s 00000000 00:19 3  {memory}/tritier_aa_1\n7f20-7f30 rw-p 0 00:00 0\n"
    (process / "maps").write_text(row)
    (process / "fd" / "5").symlink_to(memory / "tritier_bb_1")
    (tmp_path / "18").mkdir()  # a process that has just ended
    held = shm.mapped_names(memory, [process, tmp_path / "18"])
    assert held == {"tritier_aa_1", "tritier_bb_1"}
    entries = shm.own_entries(memory)
    assert set(entries) == {"tritier_aa_1", "tritier_bb_1", "tritier_cc_1"}
    assert "tritier_cc_" in (shm.check_leftovers(entries, held, memory).fix or "")
    assert shm.own_entries(memory, uid=memory.stat().st_uid + 1) == {}


def test_the_embedded_server() -> None:
    there = embedded_server.check_server(None, "0.7.0", "python")
    assert told(there) == ("ok", "tritonserver 2.51.0 (24.10), from nvidia-pytriton 0.7.0", False)
    absent = embedded_server.check_server("is not installed", None, "my python")
    assert told(absent) == ("missing", "is not installed", True)
    assert shlex.split(absent.fix or "") == [
        "my python", "-m", "pip", "install", "nvidia-pytriton==0.7.0", "numpy>=1.26,<2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "status", "fix"),
    [
        ([], "ok", None),
        (["libz.so.1", "libpython3.11.so.1.0"], "missing",
         "sudo apt-get install -y libpython3-dev zlib1g"),
        (["libfoo.so.3"], "missing", "sudo apt-get install -y libfoo"),
        (None, "missing", "python -m pip install nvidia-pytriton==0.7.0 'numpy>=1.26,<2'"),
    ],
)  # fmt: skip
def test_libraries(missing: list[str] | None, status: str, fix: str | None) -> None:
    check = embedded_server.check_libraries(missing, "python")
    assert (check.status, check.fix) == (status, fix)


@pytest.mark.parametrize(
    ("version", "stubs", "status", "fix"),
    [
        ((3, 11), ["3.9", "3.11", "3.13"], "ok", None),
        ((3, 14), ["3.9", "3.11", "3.13"], "missing",
         "python3.13 -m venv .venv && .venv/bin/pip install nvidia-pytriton==0.7.0"),
        ((3, 11), [], "missing",
         "python -m pip install nvidia-pytriton==0.7.0 'numpy>=1.26,<2'"),
    ],
)  # fmt: skip
def test_the_stub_fits_the_interpreter(
    version: tuple[int, int], stubs: list[str], status: str, fix: str | None
) -> None:
    check = embedded_server.check_stub(version, stubs)
    assert (check.status, check.fix) == (status, fix)


def test_an_old_server_is_warned_of() -> None:
    old = embedded_server.check_age("0.7.0")
    assert old.status == "warning"
    assert "2.70.0 (26.06)" in old.found
    assert embedded_server.check_age("9.9.9").status == "warning"
    assert embedded_server.check_age(None).found == "there is none"


def test_perf_analyzer() -> None:
    real = tools.check_perf_analyzer(Program(Path("/x/perf_analyzer"), "2.51.0"))
    assert told(real) == ("ok", "2.51.0, /x/perf_analyzer", False)
    how = "fetch it with `tritier bench --fetch .tools/perf_analyzer`"
    absent = tools.check_perf_analyzer(None, f"not here: the package is the placeholder; {how}")
    assert absent.found == "not here: the package is the placeholder"
    assert tools.check_perf_analyzer(None, f"is not here: {how}").found == "is not here"
    assert absent.fix == "tritier bench --fetch .tools/perf_analyzer"


def test_a_placeholder_is_no_perf_analyzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.perf_analyzer_here((tmp_path,)).status == "missing"
    script = tmp_path / "perf_analyzer"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    check = tools.perf_analyzer_here((tmp_path,))
    assert check.status == "missing"
    assert str(script) in check.found


def test_locust_and_chromium_and_solvers() -> None:
    assert told(tools.check_locust("2.47.0")) == ("ok", "2.47.0", False)
    assert tools.check_locust(None, "python").fix == "python -m pip install 'locust>=2.40'"
    assert tools.check_browser(["chromium", "chromedriver"]).status == "ok"
    fix = tools.check_browser(["chromium"]).fix
    assert fix == "sudo apt-get install -y chromium-driver"
    highs, cbc = tools.check_solvers(["HiGHS", "GLPK_CMD"], "python")
    assert (highs.status, cbc.status) == ("ok", "missing")
    assert cbc.fix == "python -m pip install --force-reinstall 'pulp>=3.3,<4'"


def test_meters() -> None:
    gpu = {"name": "NVIDIA H100", "memory_total_bytes": 1}
    assert told(meters.check_gpu([gpu], True)) == ("ok", "NVIDIA H100", False)
    assert told(meters.check_gpu([], True)) == ("warning", "no NVIDIA GPU or driver", False)
    assert told(meters.check_gpu([], False)) == ("warning", "nvidia-ml-py is not installed", True)
    assert meters.check_energy(["rapl package-0"], True).status == "ok"
    assert told(meters.check_energy([], True)) == ("warning", "only root may read them", True)
    assert told(meters.check_energy([], False)) == ("warning", "this machine has none", False)


def test_the_agent_tells_of_this_host() -> None:
    facts = meters.agent_facts()
    assert facts.host_facts()["cores"] >= 1
    assert isinstance(meters.rapl_counters(facts), list)


@pytest.mark.parametrize(
    ("status", "demo", "runs"),
    [
        ("missing", True, False),
        ("missing", False, True),
        ("warning", True, True),
        ("ok", True, True),
    ],
)
def test_only_what_is_missing_keeps_the_demo_from_running(
    status: str, demo: bool, runs: bool
) -> None:
    data = {"name": "x", "status": status, "found": "", "needed_for": "", "demo": demo}
    assert summed_up([MachineCheck.from_data(data)]).can_run_demo is runs


def test_the_own_interpreter_is_shown_relative_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_python() == sys.executable
    monkeypatch.chdir(Path(sys.executable).parent.parent)
    assert own_python() == str(Path("bin") / Path(sys.executable).name)
    assert pip_install("my python", "a>=1") == "'my python' -m pip install 'a>=1'"
