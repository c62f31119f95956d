"""A real `tritonserver` without a container: the one that the nvidia-pytriton wheel carries.

It is old (2.51.0, release 24.10) and predates the security fixes of 2025 and 2026: it is bound to
127.0.0.1 and meant for the lab, the demo and the tests, never for production.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from tritier.deployment import process
from tritier.deployment.options import serving_options
from tritier.deployment.security import protected, server_options
from tritier.documents import Security
from tritier.errors import ServerError
from tritier.resources import triton_dir

_EXIT_TIMEOUT_S = 5


@dataclass(frozen=True)
class EmbeddedServer:
    """How one server is to be started. Ports are on 127.0.0.1; HTTP is off unless `security` turns
    it on."""

    name: str
    repository: Path
    grpc_port: int
    http_port: int
    metrics_port: int
    log_file: Path
    backends: Path
    shm_prefix: str
    environment: dict[str, str] = field(default_factory=dict)
    security: Security = field(default_factory=Security)


def free_ports(count: int) -> list[int]:
    """`count` distinct TCP ports that were free on 127.0.0.1 a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def prepare_backends(folder: Path) -> Path:
    """Fill `folder` with the Python backend and the ONNX Runtime backend; returns `folder`.

    The stub must be the one of this interpreter's version, beside the backend's library.
    """
    server = server_dir()
    source = server / "backends" / "python"
    target = folder / "python"
    stub = server / "python_backend_stubs" / _python_version() / "triton_python_backend_stub"
    if not stub.is_file():
        known = sorted(path.name for path in stub.parent.parent.iterdir())
        raise ServerError(
            f"the embedded server has no stub for Python {_python_version()}, only for "
            f"{', '.join(known)}: use one of those"
        )
    target.mkdir(parents=True, exist_ok=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(source / name, target / name)
    shutil.copy2(stub, target / stub.name)
    (target / stub.name).chmod(0o755)
    runtime = folder / "onnxruntime"
    runtime.mkdir(exist_ok=True)
    shutil.copy2(triton_dir() / "backends" / "onnxruntime" / "model.py", runtime / "model.py")
    for name in ("background.py", "context.py", "tracing.py"):
        shutil.copy2(triton_dir() / "shared" / name, runtime / name)
    return folder


def command(server: EmbeddedServer) -> list[str]:
    """The command line. Everything on loopback, explicit model control, nothing auto-completed."""
    options = [
        str(server_dir() / "bin" / "tritonserver"),
        f"--id={server.name}",
        f"--model-repository={server.repository}",
        f"--backend-directory={server.backends}",
        *serving_options(_EXIT_TIMEOUT_S),
        f"--backend-config=python,shm-region-prefix-name={server.shm_prefix}",
        "--http-address=127.0.0.1",
        f"--http-port={server.http_port}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={server.grpc_port}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={server.metrics_port}",
        "--allow-gpu-metrics=false",
        *server_options(server.name, server.security),
    ]
    return protected(options, server.security)


def environment(server: EmbeddedServer) -> dict[str, str]:
    """The environment in which the server and its Python stubs find their libraries."""
    site = Path(sysconfig.get_path("purelib"))
    return {
        **os.environ,
        "LD_LIBRARY_PATH": library_path(),
        "PYTHONPATH": str(site),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        **server.environment,
    }


def library_path() -> str:
    """LD_LIBRARY_PATH of the server: the wheel's libraries, libpython, and what is set already."""
    libraries = [
        str(Path(sysconfig.get_path("purelib")) / "nvidia_pytriton.libs"),
        sysconfig.get_config_var("LIBDIR") or "",
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    return ":".join(filter(None, libraries))


def start(server: EmbeddedServer) -> int:
    """Start the server in a process group of its own; returns its pid. It is not ready yet."""
    require_embedded()
    server.log_file.parent.mkdir(parents=True, exist_ok=True)
    with server.log_file.open("ab") as log:
        return process.spawn(command(server), environment(server), log.fileno(), log.fileno())


def require_embedded() -> None:
    """Raise ServerError, with what to install, unless the embedded server can work here."""
    server_dir()
    numpy_version = importlib.metadata.version("numpy")
    if int(numpy_version.split(".")[0]) >= 2:
        raise ServerError(
            f"numpy {numpy_version} is installed; the Python backend of the embedded server "
            "returns empty tensors with numpy >= 2: pip install 'tritier[embedded]'"
        )


def server_dir() -> Path:
    """Where the wheel keeps the server; raises ServerError if it is not installed."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerError(
            "the embedded tritonserver is not installed: pip install 'tritier[embedded]'"
        )
    return Path(spec.origin).parent / "tritonserver"


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
