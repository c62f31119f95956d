"""Starts a program one of whose arguments holds a secret, without the secret in its command line.

Triton takes the key of its restricted APIs as an argument only, and everybody on a machine may read
the arguments of a process (/proc/PID/cmdline). Here the command line has a placeholder, `@KEY@`.
The argument with the secret waits in the environment, which only the same user and root can read.
Between `execve` and the first instruction of the program the process stands still for a tracer,
which makes the program's pointer to the argument point there, and takes the entry out of the
environment that the program hands on to its children.

    python hidden_key.py --key-file FILE -- PROGRAM ARGUMENT...
    python hidden_key.py --key-variable NAME -- PROGRAM ARGUMENT...

The process keeps its id. If the tracer may not trace or ends early, the program does not run: it
would otherwise take the placeholder for the key. The standard library is all that this needs, so
that the file can be copied to any machine with Linux and Python 3. Run it with `-I`, so that files
that lie beside it are not taken for modules of that library.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import struct
import sys
from pathlib import Path
from typing import IO, NoReturn

PLACEHOLDER = "@KEY@"
_VARIABLE = b"TRITIER_HIDDEN_"
# What a header and Triton's option may carry.
_MIN_CHARACTERS = 16
# Of linux/ptrace.h and linux/prctl.h.
_SEIZE, _CONTINUE, _DETACH = 0x4206, 7, 17
_EXEC_EVENT = 4
_TRACE_EXEC, _EXIT_KILL = 0x10, 0x100000
_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1).value
_WALL = 0x40000000
_WORD = struct.calcsize("P")


def main(arguments: list[str]) -> NoReturn:
    """Become the program; exits with status 1 and a message if that can't be done safely."""
    parser = argparse.ArgumentParser(description="start a program with a hidden argument")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--key-file", type=Path)
    group.add_argument("--key-variable")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    try:
        key = read_key(options.key_file, options.key_variable)
    except ValueError as error:
        sys.exit(str(error))
    environment = {**os.environ}
    if options.key_variable:
        environment.pop(options.key_variable, None)
    hidden = [x.replace(PLACEHOLDER, key) for x in options.command if PLACEHOLDER in x]
    for index, text in enumerate(hidden):
        environment[f"{_VARIABLE.decode()}{index}"] = text
    # Another entry must exist to stand in for those that are taken out.
    environment.setdefault("PATH", os.defpath)
    _start_tracer()
    try:
        os.execvpe(options.command[0], options.command, environment)
    except OSError as error:
        sys.exit(f"{options.command[0]} can't be started: {error.strerror}")


def read_key(file: Path | None, variable: str | None) -> str:
    """The key, without white space around it; ValueError, which never shows it, for a bad one."""
    if file is not None:
        where = f"the key file {file}"
        try:
            text = file.read_text(encoding="ascii")
        except OSError as error:
            raise ValueError(f"{where} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{where} holds more than letters and digits") from None
    else:
        where = f"the environment variable {variable}"
        text = os.environ.get(variable or "", "")
        if not text.isascii():
            text = "?"
        if not text:
            raise ValueError(f"{where} is not set: it must hold the key")
    key = text.strip()
    if len(key) < _MIN_CHARACTERS or not all(x.isalnum() or x in "-_" for x in key):
        raise ValueError(
            f"{where} has no good key: allowed are {_MIN_CHARACTERS} or more of the characters "
            "A-Z a-z 0-9 - _; make one with `openssl rand -hex 32`"
        )
    return key


def _start_tracer() -> None:
    """A process that no one needs to wait for traces this one from here to its next `execve`."""
    traced = os.getpid()
    reading, writing = os.pipe()
    libc = _libc()
    libc.prctl(_SET_PTRACER, _ANY, 0, 0, 0)  # for Yama, where it is
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _trace(traced, writing)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.readline()
    libc.prctl(_SET_PTRACER, 0, 0, 0, 0)  # it would hold for the program too
    if answer != b"traced\n":
        sys.exit(
            "the key can't be kept out of the command line here: this process may not be traced "
            f"({answer.decode() or 'the tracer ended'}). Allow ptrace of own processes (sysctl "
            "kernel.yama.ptrace_scope 0 or 1, the seccomp profile of the container), or start the "
            "server without a key and restrict its port by other means"
        )


def _trace(pid: int, writing: int) -> NoReturn:
    try:
        libc = _libc()
        if libc.ptrace(_SEIZE, pid, None, _TRACE_EXEC | _EXIT_KILL) != 0:
            os.write(writing, os.strerror(ctypes.get_errno()).encode())
            os._exit(1)
        os.write(writing, b"traced\n")
        os.close(writing)
        if _await_exec(libc, pid):
            with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
                _redirect(memory, _stack(pid))
            libc.ptrace(_DETACH, pid, None, None)
        os._exit(0)
    except BaseException as error:  # what is still traced is killed with this process
        os.write(2, f"the key could not be put in: {type(error).__name__}: {error}\n".encode())
        os._exit(1)


def _await_exec(libc: ctypes.CDLL, pid: int) -> bool:
    """Let the process run to its `execve`, signals included; False if it ends before."""
    while True:
        _, status = os.waitpid(pid, _WALL)
        if not os.WIFSTOPPED(status):
            return False
        if status >> 8 == signal.SIGTRAP | _EXEC_EVENT << 8:
            return True
        libc.ptrace(_CONTINUE, pid, None, os.WSTOPSIG(status))


def _redirect(memory: IO[bytes], stack: int) -> None:
    """Make arguments with the placeholder point to what waits for them in the environment."""
    memory.seek(stack)
    argc = struct.unpack("P", memory.read(_WORD))[0]
    arguments = stack + _WORD
    entries = arguments + (argc + 1) * _WORD  # a null ends the arguments
    targets = [
        place
        for place in range(arguments, arguments + argc * _WORD, _WORD)
        if PLACEHOLDER.encode() in _text(memory, _pointer(memory, place))
    ]
    hidden, other, place = {}, 0, entries
    while pointer := _pointer(memory, place):
        text = _text(memory, pointer)
        if text.startswith(_VARIABLE):
            name, _, _ = text.partition(b"=")
            hidden[int(name.removeprefix(_VARIABLE))] = (place, pointer + len(name) + 1)
        else:
            other = pointer
        place += _WORD
    for index, target in enumerate(targets):
        entry, value = hidden[index]
        _write(memory, target, value)
        # The entry can't be emptied: what follows the first null is not environment any more.
        _write(memory, entry, other)


def _stack(pid: int) -> int:
    """Where a process that has not run yet finds its arguments (`startstack`)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[25])


def _pointer(memory: IO[bytes], place: int) -> int:
    memory.seek(place)
    return int(struct.unpack("P", memory.read(_WORD))[0])


def _text(memory: IO[bytes], place: int) -> bytes:
    """The text that starts there, up to its null."""
    found = b""
    memory.seek(place)
    while b"\0" not in found:
        part = memory.read(256)
        if not part:
            break
        found += part
    return found.partition(b"\0")[0]


def _write(memory: IO[bytes], place: int, pointer: int) -> None:
    memory.seek(place)
    memory.write(struct.pack("P", pointer))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return libc


if __name__ == "__main__":
    main(sys.argv[1:])
