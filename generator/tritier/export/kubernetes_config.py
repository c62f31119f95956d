"""The ConfigMap of a tier: where its peers are, which files its volume must hold. No secret."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath

from tritier.errors import InputError
from tritier.export.kubernetes_options import Export, config_name
from tritier.export.kubernetes_scale import own_address
from tritier.export.tiers import CONFIG_DIR, PEERS_FILE, TLS_FILE, Tier

PEERS = PurePosixPath(PEERS_FILE).name
TLS = PurePosixPath(TLS_FILE).name
CHECKSUMS = "files.sha256"
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
            f"server '{tier.server}': its list of files and addresses has {size} bytes, a "
            f"ConfigMap holds {_MAX_BYTES}: generate a family of fewer plans"
        )
    return data


def digest(export: Export, tier: Tier) -> str:
    """Changes with the ConfigMap of a tier; pods carry it, so that they start anew with it."""
    text = json.dumps(config_data(export, tier), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_map(export: Export, tier: Tier) -> dict[str, object]:
    """The ConfigMap below CONFIG_DIR."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": export.meta(tier, "-config"),
        "data": config_data(export, tier),
    }


def config_volume(tier: Tier) -> dict[str, object]:
    """The volume of the ConfigMap."""
    return {"name": "config", "configMap": {"name": config_name(tier)}}


def config_mount() -> dict[str, object]:
    """Where it is in a container."""
    return {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}


def _checksums(export: Export, tier: Tier) -> str:
    """What `sha256sum --check` reads: the files of a server, relative to its folder."""
    prefix = f"{tier.server}/"
    return "".join(
        f"{file.sha256}  {file.path.removeprefix(prefix)}\n"
        for file in export.tiers.repositories.manifest.files
        if file.path.startswith(prefix)
    )
