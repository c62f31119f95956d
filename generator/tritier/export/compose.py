"""A folder with which Docker Compose runs all servers of a plan on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritier.export.compose_services import (
    SECRETS,
    TOOL_KEYS,
    ComposeOptions,
    SecretFile,
    secret_files,
    tier_service,
    tool_service,
)
from tritier.export.guide import guide
from tritier.export.links import link_files, link_service, link_shapes, service_name
from tritier.export.monitoring import GRAFANA_SECRET, monitoring_files, monitoring_services
from tritier.export.tiers import ADMIN_KEY, SECRETS_DIR, Tiers
from tritier.export.yaml_text import yaml_text
from tritier.repository import MANIFEST_NAME

# Names of services beside the tiers.
RESERVED = ("prometheus", "grafana", "tool", "loadtests")
COMPOSE_NAME = "compose.yaml"
# What a secret's key is called in a servers file, where that is another name.
_SPEC_KEYS = {ADMIN_KEY: "admin_key_file"}


def compose_files(
    tiers: Tiers, options: ComposeOptions
) -> tuple[Mapping[str, str], Mapping[str, Path]]:
    """(relative path -> content, relative path -> file to copy) of the whole folder. Same
    arguments, same bytes: there is no clock, no absolute path and no secret in them."""
    repositories = tiers.repositories
    names = (MANIFEST_NAME, *(file.path for file in repositories.manifest.files))
    copies = {f"repositories/{name}": repositories.path / name for name in names}
    secrets = secret_files(tiers)
    shapes = link_shapes(tiers, options.network) if options.network else {}
    header = (
        f"Written by `tritier export compose` from {repositories.title} of model "
        f"{repositories.plan.model.name}; docs/export.md says what to do with it."
    )
    files = {
        COMPOSE_NAME: yaml_text(header, _document(tiers, secrets, options, tuple(shapes))),
        "README.md": guide(tiers, secrets),
        "config/peers.json": tiers.peers_json(),
        "config/servers.yaml": yaml_text(
            "The same servers as the tool finds them from its container.",
            tool_servers(tiers, secrets),
        ),
        # Git and copies keep no empty folder, and files with secrets shall not get into either.
        f"{SECRETS}/.gitignore": "*\n!.gitignore\n",
    }
    for tier in tiers.tiers:
        if (content := tiers.tls_json(tier)) is not None:
            files[f"config/{tier.name}_tls.json"] = content
    return {**files, **link_files(tiers, shapes), **monitoring_files(tiers)}, copies


def tool_servers(tiers: Tiers, secrets: tuple[SecretFile, ...]) -> dict[str, Any]:
    """A servers file with the addresses of the containers and the paths of the tool's own, where
    each file with a secret has the name that it has in the folder."""
    data = tiers.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    data.pop("security", None)
    used = {tier.server: tier for tier in tiers.tiers}
    rows = []
    for row in data["servers"]:
        tier = used.get(row["name"])
        if tier is None:
            continue
        inside = tier.inside.model_dump(mode="json", exclude_none=True)
        for key in ("server_cert", "server_key"):
            inside.pop(key, None)  # the tool calls servers and is none
        for item in secrets:
            if tier.server in item.servers and item.key in TOOL_KEYS:
                inside[_SPEC_KEYS.get(item.key, item.key)] = f"{SECRETS_DIR}/{item.name}"
        ports = {"url": tier.address, "metrics_url": f"{tier.name}:{tier.ports.metrics}"}
        row.pop("security", None)
        rows.append({**row, **ports, **({"security": inside} if inside else {})})
    links = [x for x in data.get("links", []) if x["from"] in used and x["to"] in used]
    return {"servers": rows, **({"links": links} if links else {})}


def _document(
    tiers: Tiers,
    secrets: tuple[SecretFile, ...],
    options: ComposeOptions,
    shaped: tuple[str, ...],
) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for tier in tiers.tiers:
        services[tier.name] = tier_service(tiers, tier, secrets, options)
        if tier.server in shaped:
            services[service_name(tier)] = link_service(tier)
    services["tool"] = tool_service("tool", secrets)
    services["loadtests"] = tool_service("loadtests", secrets)
    services |= monitoring_services()
    files = {name: {"file": f"./{SECRETS}/{name}"} for name in (x.name for x in secrets)}
    files[GRAFANA_SECRET] = {"file": f"./{SECRETS}/{GRAFANA_SECRET}"}
    return {
        "name": f"tritier-{tiers.repositories.id}",
        "services": services,
        "networks": {"plane": {}, "monitoring": {}},
        "volumes": {"prometheus": {}, "grafana": {}},
        "secrets": files,
    }
