"""What can be read of the host: processor, memory, GPUs, power and energy.

What a host does not tell is left out; nothing here raises because a file is missing or may be read
by root only. `root` is where the host's files are.
"""

import hashlib
import math
import os
import platform
import time
from pathlib import Path

import nvml

# What ONNX Runtime's kernels for floats and 8-bit integers look for.
_FLAGS = {
    "avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8",
    "amx_bf16", "amx_tile", "f16c", "fma", "sse4_1",
    "asimd", "asimddp", "asimdhp", "neon", "i8mm", "bf16", "sve", "sve2", "svei8mm",
}  # fmt: skip
_CGROUPS = "sys/fs/cgroup"


def host_facts(root="/"):
    """The keys of HostFacts (tritier.documents.network)."""
    root = Path(root)
    info = _cpuinfo(root)
    total, available = _memory_bytes(root)
    version, providers = _onnxruntime()
    return {
        "host": _host_id(root),
        "cores": _cores(root),
        "cpu_model": _cpu_model(root, info),
        "cpu_flags": sorted(_FLAGS & set(info.get("flags", info.get("features", "")).split())),
        "memory_total_bytes": total,
        "memory_available_bytes": available,
        "gpus": nvml.gpus(),
        "python": platform.python_version(),
        "onnxruntime": version,
        "providers": providers,
        "slowdown": _slowdown(),
    }


def read_power(seconds, root="/"):
    """[{what, watt, seconds}]: means over `seconds` of what counts energy, and the present value
    (`seconds` is None) of all else. With 0 seconds only present values."""
    found = []
    if seconds > 0:
        started, before = time.monotonic(), energy_counters(root)
        time.sleep(seconds if before else 0)
        after, elapsed_s = energy_counters(root), time.monotonic() - started
        found = [
            {"what": what, "watt": joule / elapsed_s, "seconds": elapsed_s}
            for what, joule in energy_between(before, after).items()
        ]
    counted = {item["what"] for item in found}
    now = {**nvml.power_watt(), **_jetson_watt(Path(root))}
    return found + [
        {"what": what, "watt": watt, "seconds": None}
        for what, watt in now.items()
        if what not in counted
    ]


def energy_counters(root="/"):
    """{what: [joule, joule at which it starts again from 0, or None]}."""
    found = {}
    # Packages only: their parts (core, uncore) are in them, and `psys` would count them twice.
    for folder in sorted(Path(root, "sys/class/powercap").glob("intel-rapl:*")):
        name = _text(folder / "name")
        count = _number(folder / "energy_uj")
        if name.startswith("package") and count is not None:
            wrap = _number(folder / "max_energy_range_uj")
            found[f"rapl {name}"] = [count / 1e6, None if wrap is None else wrap / 1e6]
    for what, joule in nvml.energy_joule().items():
        found[what] = [joule, None]
    return found


def energy_between(before, after):
    """{what: joule} between two readings, at most one turn of a counter apart."""
    found = {}
    for what in before.keys() & after.keys():
        (start, wrap), (end, _) = before[what], after[what]
        if end >= start:
            found[what] = end - start
        elif wrap is not None:
            found[what] = end - start + wrap
    return dict(sorted(found.items()))


def _host_id(root):
    """The same in all containers of a running host, whose own machine-ids may differ: the id of
    this boot, and the others only where there is none."""
    for name in ("proc/sys/kernel/random/boot_id", "etc/machine-id"):
        if text := _text(root / name):
            break
    else:
        text = platform.node()
    return hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:16]


def _cpuinfo(root):
    """The first value of each key; keys in lower case."""
    found = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip().lower(), value.strip())
    return found


def _cpu_model(root, info):
    """The processor's name; that of the board, or else two numbers, where Linux tells no name."""
    board = _text(root / "proc/device-tree/model").strip("\0")
    numbers = [f"{key} {info[key]}" for key in ("cpu implementer", "cpu part") if key in info]
    return info.get("model name") or board or ", ".join(numbers) or platform.machine()


def _cores(root):
    """CPUs that this process may run on, or as many as its share of time is worth."""
    cores = len(os.sched_getaffinity(0))
    for folder in _cgroup_folders(root, "cpu"):
        quota, period = _cpu_quota(folder)
        if quota is not None and quota > 0 and period:
            cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def _cpu_quota(folder):
    """(quota, period) in microseconds; None for no quota (-1 in cgroup v1)."""
    fields = _text(folder / "cpu.max").split()
    if len(fields) == 2:
        return (int(fields[0]), int(fields[1])) if fields[0].isdigit() else (None, None)
    return _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")


def _memory_bytes(root):
    """(total, available), of the host or of what its cgroups leave of it."""
    info = {}
    for line in _text(root / "proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            info[key] = int(fields[0]) * 1024
    total = info.get("MemTotal", 0)
    available = info.get("MemAvailable", info.get("MemFree", 0))
    for folder in _cgroup_folders(root, "memory"):
        limit, used = _memory_limit(folder)
        if limit is not None and limit < info.get("MemTotal", math.inf):
            total = min(total or limit, limit)
            available = min(available or limit, max(0, limit - used))
    return total, available


def _memory_limit(folder):
    """(limit or None, used) in bytes; cached files that nobody reads any more are not used."""
    limit = _number(folder / "memory.max")
    used, cached = folder / "memory.current", "inactive_file"
    if limit is None:
        limit = _number(folder / "memory.limit_in_bytes")
        used, cached = folder / "memory.usage_in_bytes", "total_inactive_file"
    for line in _text(folder / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == cached and value.isdigit():
            return limit, max(0, (_number(used) or 0) - int(value))
    return limit, _number(used) or 0


def _cgroup_folders(root, controller):
    """Folders of this process's cgroup and of those above it, for cgroup v1 and v2.

    Inside a container the path may be one of the host; then only the uppermost folder is there.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [_CGROUPS, f"{_CGROUPS}/unified"]
        elif controller in controllers.split(","):
            mounts = [f"{_CGROUPS}/{controllers}", f"{_CGROUPS}/{controller}"]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for mount in dict.fromkeys(mounts):
            for count in range(len(parts), -1, -1):
                folder = root.joinpath(mount, *parts[:count])
                if folder.is_dir():
                    yield folder


def _jetson_watt(root):
    """Rails of the INA3221 monitors of a Jetson. `VDD_IN` (or the like) holds the others."""
    found = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if not _text(chip / "name").startswith("ina3221"):
            continue
        for label in sorted(chip.glob("in*_label")):
            channel = label.name[2:].partition("_")[0]
            volt, ampere = (
                _number(chip / f"in{channel}_input"),
                _number(chip / f"curr{channel}_input"),
            )
            if volt is not None and ampere is not None:
                found[f"jetson {_text(label)}"] = volt * ampere / 1e6  # mV and mA
    # Kernels before 5.x.
    for chip in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for label in sorted(chip.glob("rail_name_*")):
            milliwatt = _number(chip / f"in_power{label.name.rpartition('_')[2]}_input")
            if milliwatt is not None:
                found.setdefault(f"jetson {_text(label)}", milliwatt / 1e3)
    return found


def _onnxruntime():
    """(version, execution providers); (None, []) where it can't be imported."""
    try:
        import onnxruntime

        return onnxruntime.__version__, list(onnxruntime.get_available_providers())
    except Exception:  # also a broken install
        return None, []


def _slowdown():
    try:
        return max(1.0, float(os.environ.get("TRITIER_SLOWDOWN") or 1))
    except ValueError:
        return 1.0


def _text(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path):
    """The integer in a file; None for anything else."""
    try:
        return int(_text(path))
    except ValueError:
        return None
