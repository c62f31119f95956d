"""Runs `worker.py` with limits of time and memory."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import facts
from orders import Refused

_POLL_S = 0.05
_MEMORY_SHARE = 0.8  # of what is available now
_UNKNOWN_MEMORY_BYTES = 1 << 30
_FILE_BYTES = 256 << 20  # of each file that a worker writes; profiles hold a million events at most
_LOG_BYTES = 1000
_PREFIX, _LOCK = "tritier-agent-", "lock"


def run_worker(order, payload, is_stopped=lambda: False):
    """(result, optimised graph or b"") of an order `measure`; `payload` is the ONNX model.

    Raises Refused when the model can't be run, takes longer than the order's `limit_s`, or
    `is_stopped` says so.
    """
    with _folder() as folder:
        (folder / "model.onnx").write_bytes(payload)
        memory_bytes = facts.host_facts()["memory_available_bytes"] or _UNKNOWN_MEMORY_BYTES
        job = {
            **order,
            "memory_limit_bytes": int(_MEMORY_SHARE * memory_bytes),
            "file_limit_bytes": max(_FILE_BYTES, 4 * len(payload)),  # it may write the model back
            "parent": os.getpid(),
        }
        (folder / "job.json").write_text(json.dumps(job))
        _await_end(folder, job, is_stopped)
        result = json.loads(_read(folder / "result.json"))
        if "error" in result:
            raise Refused(f"ONNX Runtime: {result['error']}")
        graph = folder / "optimised.onnx"
        return result, _read(graph) if graph.is_file() else b""


def remove_leftovers():
    """Remove the folders of agents that were killed.

    The folder of a living one is locked, and the system forgets locks with their process.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # locked, another user's, or gone by now
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _folder():
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
        Path(name, _LOCK).open("wb") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def _read(path):
    size = path.stat().st_size
    if size > _FILE_BYTES:
        raise Refused(f"the model's {path.name} has {size} bytes; allowed are {_FILE_BYTES}")
    return path.read_bytes()


def _await_end(folder, job, is_stopped):
    """Run the worker to its end, from the thread that started it: it ends with that thread."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [_python(), "-B", str(Path(__file__).with_name("worker.py")), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=_environment(folder),
        )
        try:
            deadline = time.monotonic() + job["limit_s"]
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise Refused(f"the model was ended after the time limit of {job['limit_s']} s")
                if _resident_bytes(process.pid) > job["memory_limit_bytes"]:
                    raise Refused(
                        "the model was ended: it took more memory than the allowed "
                        f"{job['memory_limit_bytes']} bytes"
                    )
                if is_stopped():
                    raise Refused("the request was cancelled, or the agent is being unloaded")
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if not (folder / "result.json").is_file():
        raise Refused(_how_it_ended(process.returncode, folder / "log.txt"))


def _how_it_ended(code, log):
    text = log.read_bytes()[-_LOG_BYTES:].decode(errors="replace").strip() or "no word"
    how = f"with {code}"
    if code < 0:
        how = f"by the signal {signal.strsignal(-code) or -code}"
    return f"the model's process ended {how}: {text}"


def _environment(folder):
    """The agent's own, but caches are written into the folder, and a model sets no options."""
    keep = {k: v for k, v in os.environ.items() if k != "ORT_LOAD_CONFIG_FROM_MODEL"}
    return {**keep, "CUDA_CACHE_PATH": str(folder / "cuda"), "TMPDIR": str(folder)}


def _python():
    """The interpreter. Inside Triton's stub `sys.executable` may be empty or the stub itself."""
    name = os.path.basename(sys.executable or "")
    if name.startswith("python"):
        return sys.executable
    own = Path(sys.prefix, "bin", "python3")
    return str(own) if own.is_file() else shutil.which("python3") or "python3"


def _resident_bytes(pid):
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
