"""What the agent reads of a host, from files of hosts that are not this one."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tritier.documents import HostFacts
from tritier.resources import triton_dir

GIB = 2**30
MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable: 8388608 kB\n"


def load(name: str) -> ModuleType:
    """A module of the agent, which belongs to no package: Triton loads it by its path."""
    path = triton_dir() / "models" / "agent" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def facts() -> Iterator[Any]:
    before = {name: sys.modules.pop(name, None) for name in ("nvml", "facts")}
    load("nvml")
    yield load("facts")
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(root: Path, files: dict[str, object]) -> Path:
    """Files of a host."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_a_host_without_any_of_the_files_is_described_all_the_same(
    facts: Any, tmp_path: Path
) -> None:
    found = facts.host_facts(str(tmp_path))
    assert set(found) == set(HostFacts.model_fields)
    host = HostFacts.from_data(found)
    assert (host.cores, host.memory_total_bytes, host.cpu_flags, host.gpus) == (8, 0, (), ())
    assert facts.read_power(0.01, str(tmp_path)) == []
    assert facts.energy_counters(str(tmp_path)) == {}


def test_this_host_is_described(facts: Any) -> None:
    host = HostFacts.from_data(facts.host_facts())
    assert host.memory_total_bytes >= host.memory_available_bytes > 0
    assert host.onnxruntime is not None
    assert "CPUExecutionProvider" in host.providers


def test_no_onnxruntime(facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    host = HostFacts.from_data(facts.host_facts(str(tmp_path)))
    assert (host.onnxruntime, host.providers) == (None, ())


@pytest.mark.parametrize(("text", "value"), [("2.5", 2.5), ("", 1.0), ("x", 1.0), ("0.1", 1.0)])
def test_slowdown(
    facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: float
) -> None:
    monkeypatch.setenv("TRITIER_SLOWDOWN", text)
    assert facts.host_facts(str(tmp_path))["slowdown"] == value


def test_containers_of_a_running_host_have_its_hash(facts: Any, tmp_path: Path) -> None:
    boot = "proc/sys/kernel/random/boot_id"
    roots = {
        "one": {boot: "b-1", "etc/machine-id": "m-1"},
        "other": {boot: "b-1", "etc/machine-id": "m-2"},
        "restarted": {boot: "b-2", "etc/machine-id": "m-1"},
        "without": {"etc/machine-id": "m-1"},
    }
    hosts = {
        name: facts.host_facts(str(write(tmp_path / name, dict(files))))["host"]
        for name, files in roots.items()
    }
    assert hosts["one"] == hosts["other"]
    assert len(set(hosts.values())) == 3


def test_flags_and_model_of_an_x86_processor(facts: Any, tmp_path: Path) -> None:
    block = "processor : 0\nmodel name : Xeon 9\nflags : fpu avx2 avx512_vnni amx_int8 syscall\n\n"
    found = facts.host_facts(str(write(tmp_path, {"proc/cpuinfo": block * 2})))
    assert found["cpu_model"] == "Xeon 9"
    assert found["cpu_flags"] == ["amx_int8", "avx2", "avx512_vnni"]


def test_flags_and_model_of_an_arm_processor(facts: Any, tmp_path: Path) -> None:
    cpuinfo = (
        "processor\t: 0\nFeatures\t: fp asimd evtstrm asimddp i8mm sve\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd42\n"
    )
    found = facts.host_facts(str(write(tmp_path, {"proc/cpuinfo": cpuinfo})))
    assert found["cpu_flags"] == ["asimd", "asimddp", "i8mm", "sve"]
    assert found["cpu_model"] == "cpu implementer 0x41, cpu part 0xd42"
    write(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson AGX Orin\0"})
    assert facts.host_facts(str(tmp_path))["cpu_model"] == "NVIDIA Jetson AGX Orin"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}, 3),
        # A limit of the folder above holds too.
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            },
            1,
        ),
        # v1, in a container: the path is the host's, the files lie at the top.
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/0123\n3:memory:/docker/0123",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 150000,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
            },
            8,
        ),
    ],
)
def test_cores_keep_to_a_quota(
    facts: Any, tmp_path: Path, files: dict[str, object], cores: int
) -> None:
    assert facts.host_facts(str(write(tmp_path, files)))["cores"] == cores


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({}, 16 * GIB, 8 * GIB),
        # 3 GiB used, of which 1 GiB are files that can be dropped.
        (
            {
                "proc/self/cgroup": "0::/x",
                "sys/fs/cgroup/x/memory.max": 4 * GIB,
                "sys/fs/cgroup/x/memory.current": 3 * GIB,
                "sys/fs/cgroup/x/memory.stat": f"anon 5\ninactive_file {GIB}",
            },
            4 * GIB,
            2 * GIB,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, 16 * GIB, 8 * GIB),
        (
            {
                "proc/self/cgroup": "4:memory:/y",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/y/memory.limit_in_bytes": 2 * GIB,
                "sys/fs/cgroup/memory/y/memory.usage_in_bytes": GIB,
            },
            2 * GIB,
            GIB,
        ),
        # The host has less left than the limit would allow.
        (
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": 12 * GIB,
                "sys/fs/cgroup/memory.current": GIB,
            },
            12 * GIB,
            8 * GIB,
        ),
    ],
)
def test_memory_keeps_to_a_limit(
    facts: Any, tmp_path: Path, files: dict[str, object], total: int, available: int
) -> None:
    found = facts.host_facts(str(write(tmp_path, {"proc/meminfo": MEMINFO, **files})))
    assert (found["memory_total_bytes"], found["memory_available_bytes"]) == (total, available)


def rapl(root: Path, microjoule: int, zone: str = "intel-rapl:0", name: str = "package-0") -> Path:
    """A counter that starts again at 1000 J."""
    folder = f"sys/class/powercap/{zone}"
    return write(
        root,
        {
            f"{folder}/name": name,
            f"{folder}/energy_uj": microjoule,
            f"{folder}/max_energy_range_uj": 1_000_000_000,
        },
    )


def test_energy_of_packages_also_when_the_counter_starts_again(facts: Any, tmp_path: Path) -> None:
    rapl(tmp_path, 999_000_000)
    rapl(tmp_path, 5, "intel-rapl:0:0", "core")
    rapl(tmp_path, 5, "intel-rapl:1", "psys")
    rapl(tmp_path, 5, "intel-rapl-mmio:0")
    before = facts.energy_counters(str(tmp_path))
    assert before == {"rapl package-0": [999.0, 1000.0]}
    after = facts.energy_counters(str(rapl(tmp_path, 4_000_000)))
    assert json.loads(json.dumps(facts.energy_between(before, after))) == {"rapl package-0": 5.0}
    later = facts.energy_counters(str(rapl(tmp_path, 6_500_000)))
    assert facts.energy_between(after, later) == {"rapl package-0": 2.5}


def test_a_counter_that_can_not_be_read_is_left_out(facts: Any, tmp_path: Path) -> None:
    rapl(tmp_path, 1)
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    (folder / "energy_uj").unlink()
    (folder / "energy_uj").mkdir()  # reading fails for root too
    assert facts.energy_counters(str(tmp_path)) == {}


def test_a_counter_of_unknown_range_that_fell_tells_nothing(facts: Any) -> None:
    assert facts.energy_between({"x": [9.0, None]}, {"x": [1.0, None], "y": [1.0, None]}) == {}


def test_power_of_a_counter_is_its_mean(
    facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapl(tmp_path, 0)
    clock = iter((100.0, 102.0))
    fake = SimpleNamespace(
        monotonic=lambda: next(clock), sleep=lambda _: rapl(tmp_path, 30_000_000)
    )
    monkeypatch.setattr(facts, "time", fake)
    assert facts.read_power(2, str(tmp_path)) == [
        {"what": "rapl package-0", "watt": 15.0, "seconds": 2.0}
    ]
    assert facts.read_power(0, str(tmp_path)) == []


def test_rails_of_a_jetson(facts: Any, tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon3"
    files = {f"{chip}/name": "ina3221", "sys/class/hwmon/hwmon0/name": "nvme"}
    files |= {f"{chip}/in1_label": "VDD_IN", f"{chip}/in7_label": "sum of shunt voltages"}
    write(tmp_path, {**files, f"{chip}/in1_input": 5000, f"{chip}/curr1_input": 1200})
    write(tmp_path, {f"{chip}/in7_input": 8})
    assert facts.read_power(0, str(tmp_path)) == [
        {"what": "jetson VDD_IN", "watt": 6.0, "seconds": None}
    ]


def test_rails_of_a_jetson_with_an_old_kernel(facts: Any, tmp_path: Path) -> None:
    chip = "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    write(tmp_path, {f"{chip}/rail_name_0": "VDD_IN", f"{chip}/in_power0_input": 3250})
    assert facts.read_power(0, str(tmp_path)) == [
        {"what": "jetson VDD_IN", "watt": 3.25, "seconds": None}
    ]


def fake_nvml() -> Any:
    """Two GPUs as NVML shows them; the second counts no energy. Times count up."""

    def energy(gpu: int) -> int:
        if gpu == 1:
            raise RuntimeError("not supported")
        module.joule += 50
        return int(module.joule * 1000)

    module = SimpleNamespace(
        joule=100,
        open=0,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda gpu: b"A2" if gpu == 0 else "L4",
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=16 * GIB, free=15 * GIB),
        nvmlDeviceGetPowerUsage=lambda gpu: 40_000 + gpu,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    module.nvmlInit = lambda: setattr(module, "open", module.open + 1)
    module.nvmlShutdown = lambda: setattr(module, "open", module.open - 1)
    return module


def test_gpus(facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    host = HostFacts.from_data(facts.host_facts(str(tmp_path)))
    assert [(gpu.name, gpu.memory_free_bytes) for gpu in host.gpus] == [
        ("A2", 15 * GIB),
        ("L4", 15 * GIB),
    ]
    assert facts.energy_counters(str(tmp_path)) == {"nvml gpu-0": [150.0, None]}
    counted, other = facts.read_power(0.01, str(tmp_path))
    assert counted["what"] == "nvml gpu-0"
    assert counted["watt"] == pytest.approx(50 / counted["seconds"])
    assert other == {"what": "nvml gpu-1", "watt": 40.001, "seconds": None}
    assert module.open == 0


def test_nvml_without_a_driver(facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_nvml()

    def fail() -> None:
        raise RuntimeError("driver not loaded")

    module.nvmlInit = fail
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert facts.host_facts(str(tmp_path))["gpus"] == []
    assert facts.energy_counters(str(tmp_path)) == {}
