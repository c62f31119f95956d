"""What a user may choose about the exported manifests, and the names that objects have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tritier.errors import InputError
from tritier.export.tiers import Tier, Tiers

DEFAULT_NAMESPACE = "tritier"
DEFAULT_MONITORING = "monitoring"
DEFAULT_MAX_REPLICAS = 3
# Label of nodes by which a tier finds its machines, and of the one that a server prefers.
NODE_TIER = "tritier/tier"
NODE_SERVER = "tritier/server"
# Label of pods, or of their namespace, that may call the entry.
CLIENT = "tritier/client"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class KubernetesOptions:
    """`max_replicas` is what a HorizontalPodAutoscaler may go up to; with 1 there is none.
    `monitoring` is the namespace in which Prometheus runs. Raises InputError for names that no
    namespace can have."""

    namespace: str = DEFAULT_NAMESPACE
    monitoring: str = DEFAULT_MONITORING
    max_replicas: int = DEFAULT_MAX_REPLICAS
    storage_class: str | None = None
    kserve: bool = False

    def __post_init__(self) -> None:
        given = {"--namespace": self.namespace, "--monitoring-namespace": self.monitoring}
        faults = [
            f"{option} {value}: is no name of a namespace; allowed are a-z, 0-9 and -, at most 63, "
            "no - at the ends"
            for option, value in given.items()
            if not _LABEL.fullmatch(value)
        ]
        if faults:
            raise InputError(faults)


@dataclass(frozen=True)
class Export:
    """What one export is made from."""

    tiers: Tiers
    options: KubernetesOptions = field(default_factory=KubernetesOptions)

    @property
    def id(self) -> str:
        """Of the plan or the family; the folder on the volumes."""
        return self.tiers.repositories.id

    @property
    def header(self) -> str:
        """First line of every file: of what it was made, no clock and no path."""
        source = self.tiers.repositories
        name = source.plan.model.name
        return f"Written by `tritier export kubernetes` from {source.title} of {name}."

    def meta(self, tier: Tier, suffix: str = "") -> dict[str, object]:
        """Metadata of an object of a tier."""
        return {
            "name": tier.name + suffix,
            "namespace": self.options.namespace,
            "labels": labels(tier),
            "annotations": {"tritier/server": tier.server},
        }


def labels(tier: Tier) -> dict[str, str]:
    """What selects the pods of a tier, and nothing else."""
    return {"app.kubernetes.io/name": "tritier", "app.kubernetes.io/component": tier.name}


def claim_name(tier: Tier) -> str:
    """The PersistentVolumeClaim with the model repositories of a tier."""
    return f"{tier.name}-models"


def config_name(tier: Tier) -> str:
    """The ConfigMap of a tier."""
    return f"{tier.name}-config"


def secret_name(tier: Tier) -> str:
    """The Secret that the user makes for a tier."""
    return f"{tier.name}-secrets"
