"""What `tritier doctor` prints: of a machine that is made up, and of golden repositories."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

from tritier.bench.perf_analyzer import Program
from tritier.cli import doctor as command
from tritier.doctor import check_repositories, embedded_server, host, meters, shm, tools
from tritier.doctor.packages import check_packages
from tritier.doctor.report import summed_up
from tritier.documents import DoctorReport
from tritier.files import write_file

_GIB = 1 << 30
_REQUIRES = (
    "numpy>=1.26",
    "tritonclient[grpc]<3,>=2.60",
    "nvidia-pytriton==0.7.0; extra == 'embedded'",
    "scikit-image>=0.24; extra == 'demo'",
    "locust>=2.40; extra == 'loadtest'",
)
_VERSIONS = {"numpy": "1.26.4", "tritonclient": "2.73.0", "scikit-image": "0.26.0"}


def poor_machine() -> DoctorReport:
    """Something of everything is missing."""
    return summed_up(
        [
            host.check_python((3, 10, 12)),
            host.check_cores(1),
            host.check_memory(4 * _GIB, _GIB),
            host.check_open_files(256, 4096),
            host.check_loopback("127.0.0.1 can't be bound: Permission denied"),
            host.check_clock(1_000_000.0, 1_086_400.0),
            host.check_tracing("this process may not be traced (Operation not permitted)", 2),
            *check_packages(_REQUIRES, _VERSIONS.get, "python"),
            embedded_server.check_server("it is not installed", None, "python"),
            embedded_server.check_libraries(["libz.so.1"], "python"),
            embedded_server.check_stub((3, 10), ["3.11", "3.12"]),
            embedded_server.check_age("0.7.0"),
            shm.check_size(64 << 20, 32 << 20),
            shm.check_leftovers({"tritier_0a1b2c3d_x": 1 << 20}, ()),
            tools.check_perf_analyzer(None, "perf_analyzer is not here"),
            tools.check_locust(None, "python"),
            tools.check_browser(()),
            *tools.check_solvers(["HiGHS"], "python"),
            meters.check_gpu([], has_package=False, python="python"),
            meters.check_energy([], hidden=True),
        ]
    )  # fmt: skip


def good_machine() -> DoctorReport:
    """All that the demo needs is there; no GPU."""
    return summed_up(
        [
            host.check_python((3, 11, 2)),
            host.check_cores(8),
            embedded_server.check_server(None, "0.7.0", "python"),
            tools.check_perf_analyzer(Program(Path("/opt/perf_analyzer"), "2.51.0")),
            meters.check_gpu([], has_package=True, python="python"),
        ]
    )


def machines() -> str:
    """Both, as they are shown."""
    reports = (poor_machine(), good_machine())
    shown = [_shown(partial(command.show_machine, report)) for report in reports]
    return "\n".join(f"$ tritier doctor\n{text}" for text in shown)


def repositories(files: dict[str, bytes]) -> str:
    """A generated tree against an old release with a field that it lacks, and against a new one."""
    name = "device/golden/config.pbtxt"
    newer = files[name].replace(
        b"ensemble_scheduling {", b"ensemble_scheduling {\n  max_inflight_requests: 4"
    )
    assert newer != files[name]
    texts = []
    for target, tree in (("25.01", {**files, name: newer}), ("26.06", files)):
        with tempfile.TemporaryDirectory() as scratch:
            for path, data in tree.items():
                write_file(Path(scratch) / path, data)
            report = check_repositories(Path(scratch), target)
        text = _shown(partial(command.show_portability, report))
        texts.append(f"$ tritier doctor repos/ --target {target}\n{text}")
    return "\n".join(texts)


def _shown(show: Callable[[], None]) -> str:
    out = io.StringIO()
    said: list[str] = []
    with contextlib.redirect_stdout(out), mock.patch.object(command, "say", said.append):
        show()
    table = re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE)
    return table + "".join(f"{line}\n" for line in said)
