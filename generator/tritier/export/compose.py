"""A folder for Docker Compose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritier.export.tiers import Tiers

# Names of services beside the tiers.
RESERVED = ("prometheus", "grafana", "tool", "loadtest")


def compose_files(tiers: Tiers) -> tuple[Mapping[str, bytes | str], Mapping[str, Path]]:
    """(relative path -> content, relative path -> file to copy) of the whole folder."""
    repositories = tiers.repositories
    copies = {
        f"repositories/{file.path}": repositories.path / file.path
        for file in repositories.manifest.files
    }
    copies["repositories/manifest.json"] = repositories.path / "manifest.json"
    return {"peers.json": tiers.peers_json()}, copies
