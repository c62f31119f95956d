"""A key that a program gets as an argument and that its command line does not show."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import no_ptrace
from tests.helpers.processes import words_of
from tritier.deployment import hidden_key, security
from tritier.deployment.security import hiding_obstacle, protected
from tritier.documents import Security

KEY = "0123456789abcdef0123456789ABCDEF"


def test_a_hidden_key_reaches_the_program_alone(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(KEY)
    # The program says that it runs, waits for a line, and tells its argument and environment.
    program = 'read line; echo "$1"; env | grep -c "$1"; echo \'@KEY@\''
    command = protected(["/bin/sh", "-c", program, "sh", "@KEY@"], _file_key(tmp_path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        _await_program(started.pid)
        words = words_of(started.pid)
        answer, _ = started.communicate(b"go\n", timeout=10)
    assert words[0] == "/bin/sh"
    assert not [word for word in words if KEY in word]
    # Both arguments with the placeholder have the key, and children inherit it in no variable.
    assert answer.decode().split() == [KEY, "0", KEY]


def _file_key(folder: Path) -> Security:
    return Security(admin_key_file=str(folder / "k"))


def _await_program(pid: int) -> None:
    deadline = time.monotonic() + 10
    while words_of(pid)[:1] != ["/bin/sh"] and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--key-variable", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["--key-file", "/nowhere"], "can't be read"),
    ],
)
def test_without_a_key_nothing_starts(arguments: list[str], expected: str) -> None:
    command = [sys.executable, hidden_key.__file__, *arguments, "--", "/bin/echo", "@KEY@"]
    environment = {k: v for k, v in os.environ.items() if k != "NO_SUCH_KEY"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr


def test_where_tracing_is_forbidden_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(KEY)
    command = protected(["/bin/echo", "@KEY@"], _file_key(tmp_path))
    forbidding = [sys.executable, "-I", "-S", no_ptrace.__file__]
    found = [
        subprocess.run(words, capture_output=True, text=True, check=False)
        for words in ([*forbidding, *command], command)  # the second is the control
    ]
    assert [(done.returncode, done.stdout) for done in found] == [(1, ""), (0, f"{KEY}\n")]
    assert "may not be traced (Operation not permitted). Allow ptrace" in found[0].stderr


def test_a_program_that_gets_no_key_is_ended_and_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(KEY)
    copied = tmp_path / "hidden_key.py"
    source = Path(hidden_key.__file__).read_text()
    broken = source.replace("_redirect(memory, _stack(pid))", 'raise OSError("no memory")')
    assert broken != source
    copied.write_text(broken)
    command = [sys.executable, "-I", "-S", str(copied), "--key-file", str(tmp_path / "k")]
    done = subprocess.run(
        [*command, "--", "/bin/echo", "@KEY@"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert "could not be put in: OSError: no memory" in done.stderr


def test_files_beside_it_are_no_modules_of_it(tmp_path: Path) -> None:
    """As where it is copied to a folder in which others may write."""
    (tmp_path / "k").write_text(KEY)
    shutil.copy2(hidden_key.__file__, tmp_path / "hidden_key.py")
    (tmp_path / "struct.py").write_text("raise SystemExit('of another')")
    found = protected(["/bin/echo", "@KEY@"], _file_key(tmp_path))
    command = [str(tmp_path / "hidden_key.py") if x == hidden_key.__file__ else x for x in found]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{KEY}\n"


def test_whether_a_key_can_be_hidden_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hiding_obstacle() is None
    plain = security.protected

    def forbidding(command: list[str], own: Security) -> list[str]:
        return [sys.executable, "-I", "-S", no_ptrace.__file__, *plain(command, own)]

    monkeypatch.setattr(security, "protected", forbidding)
    assert "may not be traced (Operation not permitted)" in (hiding_obstacle() or "")
