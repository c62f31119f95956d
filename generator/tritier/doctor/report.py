"""All checks of this machine, in the order in which a user meets what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tritier
from tritier.doctor import embedded_server, host, meters, packages, shm, tools
from tritier.doctor.fixes import own_python
from tritier.documents import DoctorReport, MachineCheck
from tritier.planner.pulp_solvers import installed_solvers


def machine_report(folders: tuple[Path, ...] = (Path(),)) -> DoctorReport:
    """Look at this machine. Nothing is started that stays, and nothing is changed.

    `folders`: where `tritier bench` looks for a fetched perf_analyzer.
    """
    return summed_up(
        [
            *_basics(),
            *packages.check_packages(packages.own_requirements(), python=own_python()),
            *_embedded(),
            *_shared_memory(),
            *_programs(folders),
            *_meters(),
        ]
    )


def summed_up(checks: Sequence[MachineCheck]) -> DoctorReport:
    """The demo can run if nothing is missing that it needs; warnings do not count."""
    return DoctorReport(
        tool_version=tritier.__version__,
        can_run_demo=not blocking(checks),
        checks=tuple(checks),
    )


def blocking(checks: Sequence[MachineCheck]) -> list[MachineCheck]:
    """What keeps `tritier demo` from running."""
    return [check for check in checks if check.demo and check.status == "missing"]


def _basics() -> list[MachineCheck]:
    facts = meters.agent_facts().host_facts()
    return [
        host.check_python(host.python_version()),
        host.check_cores(facts["cores"]),
        host.check_memory(facts["memory_total_bytes"], facts["memory_available_bytes"]),
        host.check_open_files(*host.open_files()),
        host.check_loopback(host.loopback_obstacle()),
        host.check_clock(host.now_s(), host.newest_file_s(host.own_files())),
        host.check_tracing(host.tracing_obstacle(), host.yama_scope()),
    ]


def _embedded() -> list[MachineCheck]:
    version, python = packages.installed_version(embedded_server.WHEEL), own_python()
    stubs = embedded_server.stub_versions()
    return [
        embedded_server.check_server(embedded_server.obstacle_now(), version, python),
        embedded_server.check_libraries(embedded_server.missing_libraries(), python),
        embedded_server.check_stub(host.python_version()[:2], stubs, python),
        embedded_server.check_age(version),
    ]


def _shared_memory() -> list[MachineCheck]:
    entries = shm.own_entries()
    return [
        shm.check_size(*shm.sizes()),
        shm.check_leftovers(entries, shm.mapped_names() if entries else ()),
    ]


def _programs(folders: tuple[Path, ...]) -> list[MachineCheck]:
    return [
        tools.perf_analyzer_here(folders),
        tools.check_locust(packages.installed_version("locust"), own_python()),
        tools.check_browser(tools.browsers_here()),
        *tools.check_solvers(installed_solvers(), own_python()),
    ]


def _meters() -> list[MachineCheck]:
    facts = meters.agent_facts()
    has_package = packages.installed_version("nvidia-ml-py") is not None
    return [
        meters.check_gpu(facts.nvml.gpus(), has_package, own_python()),
        meters.check_energy(meters.rapl_counters(facts), meters.has_hidden_counters()),
    ]
