"""`tritier export kubernetes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import DryRunFlag, ForceFlag, JsonFlag, ReposArgument, ServersOption
from tritier.cli.export import DEFAULT_IMAGE, ImageOption, tiers_of
from tritier.cli.output import say, show_json
from tritier.costs.sharing_config import config_map
from tritier.errors import UsageError
from tritier.export.kubernetes import kubernetes_files
from tritier.export.kubernetes_options import (
    DEFAULT_MAX_REPLICAS,
    DEFAULT_MONITORING,
    DEFAULT_NAMESPACE,
    Export,
    KubernetesOptions,
)
from tritier.export.kubernetes_scale import one_pod_comment, scales
from tritier.export.tiers import Tiers
from tritier.export.write import refuse_output, write_export

# Where NVIDIA's Helm chart of the device plugin is installed by its own instructions.
_PLUGIN_NAMESPACE = "nvidia-device-plugin"
_SLICING_FILE = "time-slicing.yaml"


def kubernetes_command(
    repos: ReposArgument,
    servers: ServersOption,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to fill; nothing else belongs in it.")
    ],
    image: ImageOption = DEFAULT_IMAGE,
    namespace: Annotated[
        str, typer.Option("--namespace", help="Namespace of all objects.")
    ] = DEFAULT_NAMESPACE,
    kserve: Annotated[
        bool,
        typer.Option("--kserve", help="ServingRuntime and InferenceService for Deployments."),
    ] = False,
    max_replicas: Annotated[
        int,
        typer.Option(
            "--max-replicas",
            metavar="N",
            min=1,
            help="Pods that an autoscaler may start of a tier that may have several; 1: none does.",
        ),
    ] = DEFAULT_MAX_REPLICAS,
    storage_class: Annotated[
        str | None,
        typer.Option("--storage-class", help="Of all volumes; the cluster's default if left out."),
    ] = None,
    monitoring_namespace: Annotated[
        str, typer.Option("--monitoring-namespace", help="Where Prometheus runs.")
    ] = DEFAULT_MONITORING,
    gpu_sharers: Annotated[
        int | None,
        typer.Option(
            "--gpu-sharers",
            metavar="N",
            min=2,
            help="Also write the time slicing of NVIDIA's device plugin: N pods share a GPU.",
        ),
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write manifests with which Kubernetes runs the servers of a plan.

    Certificates and keys are not in them: README.md in the folder says how to make the Secrets.

    \b
    Example:
        tritier export kubernetes repos/ --servers servers.yaml -o kubernetes/
        tritier export kubernetes repos/ --servers servers.yaml -o kserve/ --kserve
    """
    options = KubernetesOptions(
        namespace, monitoring_namespace, max_replicas, storage_class, kserve
    )
    tiers = tiers_of(repos, servers, image)
    files = kubernetes_files(tiers, options) | _slicing(tiers, gpu_sharers)
    if dry_run:
        refuse_output(tiers, output, force)
    else:
        write_export("kubernetes", tiers, files, output, force)
    _say(Export(tiers, options))
    say(f"{'would write' if dry_run else 'wrote'} {len(files) + 1} files to {output}")
    if json:
        show_json({"files": sorted(files)})


def _slicing(tiers: Tiers, sharers: int | None) -> dict[str, str]:
    """The device plugin's ConfigMap, which lies in its own namespace."""
    if sharers is None:
        return {}
    if not any(tier.needs_gpu for tier in tiers.tiers):
        raise UsageError(
            "--gpu-sharers: no server of the plan has `execution_provider: cuda`; leave it out"
        )
    return {_SLICING_FILE: config_map(sharers, "tritier-time-slicing", _PLUGIN_NAMESPACE)}


def _say(export: Export) -> None:
    """What a user must know of each tier."""
    for tier in export.tiers.tiers:
        if not scales(export, tier):
            say(f"one pod of '{tier.server}': {one_pod_comment(export, tier)}")
