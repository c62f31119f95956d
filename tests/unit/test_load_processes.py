"""Processes of a load test: their commands, and what is said when they fail."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.helpers.loads import job, questions
from tritier.bench import locust_run
from tritier.bench.locust_job import FOLDER_VARIABLE, PROGRESS_NAME, write_job
from tritier.bench.locust_run import LoadProcesses, Processes, check_locust, commands, shown
from tritier.errors import InputError, ServerError
from tritier.resources import loadtests_dir


def _option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_one_process_needs_no_master() -> None:
    found = commands(job(), Processes(), 1)
    assert list(found) == ["locust"]
    assert "--headless" in found["locust"]
    assert "--master" not in found["locust"]
    files = _option(found["locust"], "-f").split(",")
    assert [Path(file).parent for file in files] == [loadtests_dir()] * 2
    assert all(Path(file).is_file() for file in files)


def test_workers_here_are_reached_on_loopback_alone() -> None:
    found = commands(job(), Processes(workers=2), 1234)
    assert list(found) == ["master", "worker 0", "worker 1"]
    assert _option(found["master"], "--master-bind-host") == "127.0.0.1"
    assert _option(found["master"], "--expect-workers") == "2"
    for name in ("worker 0", "worker 1"):
        assert _option(found[name], "--master-host") == "127.0.0.1"
        assert _option(found[name], "--master-port") == "1234"


def test_workers_of_other_machines_are_waited_for_without_end() -> None:
    found = commands(job(), Processes(workers=1, expect=3, bind="0.0.0.0"), 5557)
    assert list(found) == ["master", "worker 0"]
    assert _option(found["master"], "--expect-workers") == "4"
    assert "--expect-workers-max-wait" not in found["master"]
    assert _option(found["worker 0"], "--master-host") == "127.0.0.1"
    there = commands(job(), Processes(workers=2, master="10.0.0.5"), 5557)
    assert list(there) == ["worker 0", "worker 1"]
    assert _option(there["worker 0"], "--master-host") == "10.0.0.5"


def test_the_web_page_is_on_loopback() -> None:
    found = commands(job(), Processes(web_port=8089), 1)["locust"]
    assert _option(found, "--web-host") == "127.0.0.1"
    assert "--headless" not in found


def test_what_is_shown_can_be_pasted() -> None:
    text = shown(["locust", "-f", "a b.py"], Path("/tmp/x y"))
    assert shlex.split(text) == [f"{FOLDER_VARIABLE}=/tmp/x y", "locust", "-f", "a b.py"]


def test_settings_for_other_tests_are_left_out() -> None:
    own = {"LOCUST_RUN_TIME": "5s", "PATH": "/bin"}
    found = locust_run._environment(own, Path("/tmp/x"))
    assert found == {"PATH": "/bin", FOLDER_VARIABLE: "/tmp/x", "PYTHONUNBUFFERED": "1"}


def test_a_missing_locust_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check_locust()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'tritier\[loadtest\]'"):
        check_locust()


def _processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> LoadProcesses:
    """Programs of Python instead of Locust."""
    write_job(tmp_path / "run", job(), questions("aaaaaaaa"))
    made = {name: [sys.executable, "-S", "-c", text] for name, text in programs.items()}
    monkeypatch.setattr(locust_run, "commands", lambda *_: made)
    return LoadProcesses(tmp_path / "run", job(), Processes(), lambda _line: None)


def test_a_failure_of_locust_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = _processes(tmp_path, monkeypatch, locust="import sys; sys.exit('port in use')")
    with pytest.raises(ServerError, match=r"no result:\nport in use"):
        started.run()


def test_a_worker_that_does_not_start_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(locust_run, "_POLL_S", 0.02)
    wait = (
        "import os, time\n"
        "while not os.path.exists('pid'): time.sleep(0.01)\n"
        "raise SystemExit('bad')"
    )
    started = _processes(tmp_path, monkeypatch, master=sleeper, **{"worker 0": wait})
    with pytest.raises(ServerError, match=r"worker 0 of the load test ended at its start:\nbad"):
        started.run()
    pid = int((tmp_path / "run" / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_test_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = _processes(tmp_path, monkeypatch, locust="import time; time.sleep(60)")
    monkeypatch.setattr(LoadProcesses, "_limit_s", lambda _: 0.3)
    with pytest.raises(ServerError, match=r"no result \(the test did not end within 0 s"):
        started.run()


@pytest.fixture
def plain_signals() -> Iterator[None]:
    """As in a terminal: whoever runs the tests may have them ignored, as nohup does."""
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGHUP, hangup)


@pytest.mark.usefixtures("plain_signals")
def test_signals_are_counted_and_given_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with locust_run._interrupts() as count:
        for number in numbers:
            signal.raise_signal(number)
        assert count() == 3
    assert [signal.getsignal(number) for number in numbers] == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with locust_run._interrupts() as count:
        signal.raise_signal(signal.SIGHUP)
        assert count() == 0, "as nohup wants it"


def test_progress_is_told_line_by_line(tmp_path: Path) -> None:
    lines: list[str] = []
    made = LoadProcesses(tmp_path, job(), Processes(), lines.append)
    made._tell()
    (tmp_path / PROGRESS_NAME).write_text("one\ntwo\n")
    made._tell()
    made._tell()
    assert lines == ["one", "two"]
