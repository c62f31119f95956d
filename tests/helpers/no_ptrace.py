"""Runs a program where the kernel refuses ptrace, as a strict container does.

python tests/helpers/no_ptrace.py PROGRAM ARGUMENT...
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

# Number of the system call ptrace.
_PTRACE = {"x86_64": 101, "aarch64": 117}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
# Instructions of a filter: load the number, compare it, and answer.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001


def refuse_ptrace() -> None:
    """From here on, for this process and all that it starts."""
    steps = [
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 1, _PTRACE[platform.machine()]),
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_ulong  # all are checked, also those that are not used
    libc.prctl.argtypes = [ctypes.c_int, number, ctypes.c_void_p, number, number]
    done = libc.prctl(_NO_NEW_PRIVILEGES, 1, None, 0, 0)
    if done != 0 or libc.prctl(_SECCOMP, _FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no seccomp filter here")


if __name__ == "__main__":
    refuse_ptrace()
    os.execvp(sys.argv[1], sys.argv[1:])
