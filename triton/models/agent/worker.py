"""Runs one ONNX model in a process of its own, which the agent can end at any time.

    python3 worker.py FOLDER

reads `job.json` and `model.onnx` in the folder and writes `result.json` there: times of the runs,
of each kernel if asked for, memory, energy. With a profile `optimised.onnx` is the graph as ONNX
Runtime runs it, its large constants left out.
"""

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import statistics
import sys
import time
from pathlib import Path

import facts
import onnxruntime as ort
from arrays import array_of
from standalone import check_standalone

_PR_SET_PDEATHSIG = 1
# Threads, memory pools and libraries need address space beyond what a model holds.
_SPARE_BYTES = 4 << 30
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "openvino": "OpenVINOExecutionProvider"}
_KERNEL = "_kernel_time"
_SHORTER = "ask for fewer runs, or for none with a profile"


def main(folder):
    job = json.loads((folder / "job.json").read_text())
    _be_contained(job)
    try:
        result = measure(job, folder)
    except Exception as error:  # whatever ONNX Runtime raises, it is the answer
        result = {"error": f"{error}"}
    (folder / "result.json").write_text(json.dumps(result))


def measure(job, folder):
    """Times (ns), memory (bytes) and energy (J) of a model; raises what ONNX Runtime raises."""
    _check_file(folder / "model.onnx")
    before_bytes = _resident_bytes()
    session = _session(job, folder)
    loaded_bytes = _resident_bytes()
    known = {node.name for node in session.get_inputs()}
    if known != set(job["inputs"]):
        raise ValueError(f"the model has the inputs {sorted(known)}, not {sorted(job['inputs'])}")
    feed = {name: array_of(item) for name, item in job["inputs"].items()}
    for _ in range(job["warmup"]):
        time.sleep(job["idle_s"])
        session.run(None, feed)
    _reset_peak()
    runs_ns, energy_joule = _timed(lambda: session.run(None, feed), job["runs"], job["idle_s"])
    result = {
        "runs_ns": runs_ns,
        "energy_joule": energy_joule,
        "memory": {
            "loaded_bytes": loaded_bytes - before_bytes,
            "peak_bytes": _peak_bytes() - before_bytes,
        },
        "onnxruntime": ort.__version__,
    }
    if job["profile"]:
        result |= _kernels(Path(session.end_profiling()), job["warmup"])
    return result


def _timed(run, count, idle_s):
    """(ns of each run, {what: joule} of all of them); `idle_s` before each counts for neither."""
    runs_ns, energy_joule = [], {}
    # Counters move in steps: a sum over single runs is coarser than one look around all of them.
    each = 1 if idle_s else count
    for _ in range(0, count, each):
        time.sleep(idle_s)
        before = facts.energy_counters()
        for _ in range(each):
            started = time.perf_counter_ns()
            run()
            runs_ns.append(time.perf_counter_ns() - started)
        for what, joule in facts.energy_between(before, facts.energy_counters()).items():
            energy_joule[what] = energy_joule.get(what, 0.0) + joule
    return runs_ns, energy_joule


def _check_file(path):
    if not path.stat().st_size:
        raise ValueError("the model is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        check_standalone(data)


def _session(job, folder):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # as it was checked
    options.intra_op_num_threads = job["threads"]
    options.log_severity_level = 3
    # As the serving backend has it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if job["profile"]:
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        entry = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{entry}file_name", "constants.bin")
        options.add_session_config_entry(f"{entry}min_size_in_bytes", "256")
    providers = ["CPUExecutionProvider"]
    if wanted := _PROVIDERS.get(job["provider"]):
        available = ort.get_available_providers()
        if wanted not in available:
            raise ValueError(f"{wanted} is not available; this onnxruntime has {available}")
        providers.insert(0, wanted)
    return ort.InferenceSession(str(folder / "model.onnx"), options, providers=providers)


def _kernels(path, warmup):
    """Median, mean and standard deviation (ns) of each kernel, in the order of execution."""
    times, kinds, runs = {}, {}, []
    try:
        events = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"the profile is too long: {_SHORTER}") from None
    for event in events:
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            name = name.removesuffix(_KERNEL)
            times.setdefault(name, []).append(event["dur"] * 1000)
            kinds[name] = (event["args"]["op_name"], event["args"].get("provider", ""))
        elif name == "model_run":
            runs.append(event["dur"] * 1000)
    if len(runs) <= warmup:  # ONNX Runtime stops writing after a million events
        raise ValueError(
            f"the profile holds {len(runs)} runs, {warmup} of them warm-up: {_SHORTER}"
        )
    return {
        "kernels": [
            {"name": name, "op_type": kinds[name][0], "provider": kinds[name][1]}
            | _summary(values[warmup * len(values) // len(runs) :])
            for name, values in times.items()
        ],
        "profiled_run_ns": _summary(runs[warmup:]),
    }


def _summary(values):
    return {
        "median_ns": statistics.median(values),
        "mean_ns": statistics.fmean(values),
        "std_ns": statistics.pstdev(values),
        "n": len(values),
    }


def _be_contained(job):
    """End with the agent, leave no core file, take no more memory or disk than allowed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:  # it died before we could say that
        sys.exit("the agent is gone")
    with contextlib.suppress(OSError):  # if memory gets short all the same, take us, not the server
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, job["file_limit_bytes"])
    # CUDA reserves address space far beyond the memory that it uses.
    if job["provider"] != "cuda":
        _limit(resource.RLIMIT_AS, job["memory_limit_bytes"] + _SPARE_BYTES)


def _limit(what, value):
    """Set a limit, unless a tighter one is set already."""
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _status_bytes(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def _resident_bytes():
    """Resident memory; what was freed is given back first."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status_bytes("VmRSS:")


def _reset_peak():
    with contextlib.suppress(OSError):  # else the peak includes loading
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes():
    return _status_bytes("VmHWM:")


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    main(Path(sys.argv[1]))
