"""The ConfigMap of a tier: where its peers are, which files its volume must hold, programs. No
secret is in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tritier.deployment import hidden_key
from tritier.errors import InputError
from tritier.export.kubernetes_options import Export, config_name
from tritier.export.kubernetes_scale import own_address
from tritier.export.tiers import CONFIG_DIR, PROGRAMS_DIR, Tier

PEERS = "peers.json"
TLS = "tls.json"
CHECKSUMS = "files.sha256"
HIDDEN_KEY = "hidden_key.py"
PROBE = "kubernetes_probe.py"
# A ConfigMap holds at most 1 MiB, with what Kubernetes adds.
_MAX_BYTES = 1_000_000


def config_data(export: Export, tier: Tier) -> dict[str, str]:
    """File name -> content; InputError if it is more than a ConfigMap holds."""
    addresses = {item.server: item.address for item in export.tiers.tiers}
    addresses[tier.server] = own_address(tier)
    data = {
        PEERS: json.dumps(addresses, indent=2, sort_keys=True) + "\n",
        CHECKSUMS: _checksums(export, tier),
    }
    if (tls := export.tiers.tls_json(tier)) is not None:
        data[TLS] = tls
    size = sum(len(key) + len(text.encode()) for key, text in data.items())
    if size > _MAX_BYTES:
        raise InputError(
            f"server '{tier.server}': its list of files and addresses has {size} bytes, a ConfigMap "
            f"holds {_MAX_BYTES}: generate a family of fewer plans"
        )
    return data


def programs(tier: Tier) -> dict[str, str]:
    """Programs that run in the container beside Triton; empty without TLS and key."""
    found = {}
    if tier.security.restricted:
        found[HIDDEN_KEY] = Path(hidden_key.__file__).read_text(encoding="utf-8")
    if tier.security.tls:
        found[PROBE] = Path(__file__).with_name(PROBE).read_text(encoding="utf-8")
    return found


def environment(tier: Tier) -> dict[str, str]:
    """Environment variables of the container."""
    found = {"TRITIER_PEERS": f"{CONFIG_DIR}/{PEERS}", "PYTHONDONTWRITEBYTECODE": "1"}
    if tier.security.tls:
        found["TRITIER_TLS"] = f"{CONFIG_DIR}/{TLS}"
    return found


def digest(export: Export, tier: Tier) -> str:
    """Changes with the ConfigMaps of a tier; pods carry it, so that they start anew with them."""
    text = json.dumps({**config_data(export, tier), **programs(tier)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_map(export: Export, tier: Tier) -> dict[str, object]:
    """The ConfigMap below CONFIG_DIR."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": export.meta(tier, "-config"),
        "data": config_data(export, tier),
    }


def programs_map(export: Export, tier: Tier) -> dict[str, object]:
    """The ConfigMap below PROGRAMS_DIR."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": export.meta(tier, "-programs"),
        "data": programs(tier),
    }


def config_volumes(tier: Tier) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Volumes of the ConfigMaps, and where they are mounted."""
    volumes: list[dict[str, object]] = [
        {"name": "config", "configMap": {"name": config_name(tier)}}
    ]
    mounts: list[dict[str, object]] = [
        {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}
    ]
    if programs(tier):
        volumes.append({"name": "programs", "configMap": {"name": f"{tier.name}-programs"}})
        mounts.append({"name": "programs", "mountPath": PROGRAMS_DIR, "readOnly": True})
    return volumes, mounts


def _checksums(export: Export, tier: Tier) -> str:
    """What `sha256sum --check` reads: the files of a server, relative to its folder."""
    prefix = f"{tier.server}/"
    return "".join(
        f"{file.sha256}  {file.path.removeprefix(prefix)}\n"
        for file in export.tiers.repositories.manifest.files
        if file.path.startswith(prefix)
    )
