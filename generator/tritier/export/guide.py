"""README.md of an exported compose folder."""

from __future__ import annotations

from collections.abc import Sequence

import tritier
from tritier.export.compose_services import SECRETS, SecretFile
from tritier.export.monitoring import GRAFANA_SECRET
from tritier.export.tiers import Tier, Tiers

_START = """\
## Start

The images are built in a checkout of Tritier {version}:

```console
$ docker build --file docker/tritonserver.Dockerfile --tag {image} .
$ docker build --file docker/tritier.Dockerfile --tag tritier/tritier:{version} .
$ docker build --file docker/loadtests.Dockerfile --tag tritier/loadtests:{version} .
```

Then, in this folder:

```console
$ export TRITIER_UID=$(id -u) TRITIER_GID=$(id -g)
$ docker compose up --detach --wait
```

The model `{model}` answers gRPC at 127.0.0.1:8001 (`TRITIER_BIND`, `TRITIER_PORT`). All models are
loaded from `repositories/` when the servers start.

```console
$ docker compose run --rm tool servers check --servers servers.yaml
$ docker compose run --rm loadtests bench --help
$ openssl rand -hex 16 > {secrets}/{password}
$ docker compose --profile monitoring up --detach --wait
```

Prometheus is at 127.0.0.1:9090, Grafana at 127.0.0.1:3000 (user `admin`, password in that file).
"""


def guide(tiers: Tiers, secrets: Sequence[SecretFile]) -> str:
    """What the folder holds, which files with secrets are missing, and how to start it."""
    repositories = tiers.repositories
    title = f"# {repositories.plan.model.name}, {repositories.title}\n"
    rows = [_row(tier) for tier in tiers.tiers]
    head = "| service | server | tier | calls | memory limit | GPU |\n|---|---|---|---|---|---|\n"
    start = _START.format(
        version=tritier.__version__,
        image=tiers.entry.image,
        model=repositories.plan.model.name,
        secrets=SECRETS,
        password=GRAFANA_SECRET,
    )
    parts = [title, head + "".join(rows), *_secrets(tiers, secrets), start]
    return "\n".join(parts)


def _row(tier: Tier) -> str:
    memory = "none" if tier.memory_bytes is None else f"{tier.memory_bytes / 2**20:g} MiB"
    calls = ", ".join(tier.calls) or "nobody"
    label = f"{tier.label}, entry" if tier.is_entry else tier.label
    gpu = "yes" if tier.needs_gpu else "no"
    return f"| `{tier.name}` | {tier.server} | {label} | {calls} | {memory} | {gpu} |\n"


def _secrets(tiers: Tiers, secrets: Sequence[SecretFile]) -> list[str]:
    if not secrets:
        return []
    rows = [f"| `{x.name}` | `{x.key}` of {', '.join(x.servers)} |\n" for x in secrets]
    text = (
        f"## Before the start\n\nPut these files into `{SECRETS}/`, readable by you alone "
        "(`chmod 600`); containers run as you.\n\n| file | what, in `security` of the servers file "
        f"|\n|---|---|\n{''.join(rows)}"
    )
    names = [
        f"- {tier.server}: `{tier.security.server_name or tier.name}`\n"
        for tier in tiers.tiers
        if tier.security.tls
    ]
    if not names:
        return [text]
    return [text, "Certificates of the servers must hold these DNS names:\n\n" + "".join(names)]
