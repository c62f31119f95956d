"""GPUs and energy counters, and what else the agent reads of a host.

The agent's own modules are asked, so that this says what a server here would say.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tritier.doctor.fixes import pip_install
from tritier.documents import MachineCheck
from tritier.resources import triton_dir

_FLAT = ("nvml", "facts")
_COUNTERS = Path("/sys/class/powercap")


def check_gpu(
    gpus: Sequence[Mapping[str, Any]], has_package: bool, python: str = "python"
) -> MachineCheck:
    """GPUs that NVML tells of. None is fine: everything works on CPUs."""
    names = ", ".join(str(gpu["name"]) for gpu in gpus)
    fix = None if has_package else pip_install(python, "nvidia-ml-py>=12")
    lacking = "no NVIDIA GPU or driver" if has_package else "nvidia-ml-py is not installed"
    return MachineCheck(
        name="GPU (NVML)",
        status="ok" if gpus else "warning",
        found=names or lacking,
        needed_for="servers with execution_provider: cuda, power of GPUs",
        fix=None if gpus else fix,
    )


def check_energy(counters: Sequence[str], hidden: bool, folder: Path = _COUNTERS) -> MachineCheck:
    """`counters`: those that can be read; `hidden`: there are some that this user may not read."""
    found = ", ".join(counters)
    if not counters:
        found = "only root may read them" if hidden else "this machine has none"
    return MachineCheck(
        name="energy (RAPL)",
        status="ok" if counters else "warning",
        found=found,
        needed_for="measured power; else the powers of servers.yaml are taken",
        fix=f"sudo chmod a+r {folder}/intel-rapl:*/energy_uj" if hidden and not counters else None,
    )


def agent_facts() -> ModuleType:
    """The agent's module `facts`. It lies in no package: Triton loads such modules flat."""
    folder = str(triton_dir() / "models" / "agent")
    known = {name: sys.modules.pop(name) for name in _FLAT if name in sys.modules}
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("facts")
    finally:
        sys.path.remove(folder)
        for name in _FLAT:
            sys.modules.pop(name, None)
        sys.modules.update(known)


def rapl_counters(facts: ModuleType) -> list[str]:
    """Names of the energy counters of processors that can be read."""
    return [name for name in facts.energy_counters() if name.startswith("rapl ")]


def has_hidden_counters(folder: Path = _COUNTERS) -> bool:
    """Whether there are counters at all, which another user may read."""
    return any(folder.glob("intel-rapl:*/energy_uj"))
