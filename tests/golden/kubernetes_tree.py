"""The golden manifests of three servers, and the messages of what can't be exported."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tritier.documents import ServersSpec
from tritier.errors import TritierError
from tritier.export import Tiers, read_tiers
from tritier.export.kubernetes import kubernetes_files
from tritier.export.kubernetes_options import KubernetesOptions
from tritier.repository import Repositories, write_files


def tree(files: dict[str, bytes], servers: ServersSpec) -> dict[str, bytes]:
    """Path -> content of the export of a generated folder, without what changes with each change of
    a Python model: their checksums, and the hash of the ConfigMap with them."""
    with tempfile.TemporaryDirectory() as scratch:
        found = kubernetes_files(_tiers(files, servers, Path(scratch)))
    return {path: _without_copies(text).encode() for path, text in found.items()}


def errors(files: dict[str, bytes], servers: ServersSpec) -> str:
    """A message for each thing that can't be exported."""
    with tempfile.TemporaryDirectory() as scratch:
        tiers = _tiers(files, servers, Path(scratch))
        with mock.patch("tritier.export.kubernetes_config._MAX_BYTES", 999):
            large = _message(lambda: kubernetes_files(tiers))
    large = re.sub(r"has \d+ bytes", "has N bytes", large)
    bad = _message(lambda: KubernetesOptions(namespace="My_Space", monitoring="-"))
    return f"{bad}\n{large}\n"


def _tiers(files: dict[str, bytes], servers: ServersSpec, folder: Path) -> Tiers:
    write_files(files, folder / "repos", force=False)
    return read_tiers(Repositories.open(folder / "repos"), servers)


def _message(act: Callable[[], object]) -> str:
    try:
        act()
    except TritierError as error:
        return str(error)
    raise AssertionError("is not refused")


def _without_copies(text: str) -> str:
    text = re.sub(r"^ *[0-9a-f]{64}  .*\.py\n", "", text, flags=re.MULTILINE)
    return re.sub(r'(tritier/config: )"?[0-9a-f]{16}"?', r"\1HASH", text)
