"""Options of tritonserver that all servers of a plan have, wherever they run."""

from __future__ import annotations


def serving_options(exit_timeout_s: int) -> list[str]:
    """Models are loaded when somebody says so, configs are taken as they are written, and a server
    is ready when all its models are. `exit_timeout_s` is what requests in flight get at the end."""
    return [
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        f"--exit-timeout-secs={exit_timeout_s}",
    ]
