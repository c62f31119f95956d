"""The same pods run by KServe: a ServingRuntime and an InferenceService per tier."""

from __future__ import annotations

from typing import Any

from tritier.export.kubernetes_options import Export, labels
from tritier.export.kubernetes_pod import pod_metadata, pod_spec
from tritier.export.kubernetes_scale import one_pod_comment, scales
from tritier.export.kubernetes_yaml import Manifest
from tritier.export.tiers import Tier

# The container of a runtime that serves must have this name.
CONTAINER = "kserve-container"
MODEL_FORMAT = "tritier"
# Names of their own: the Service by which a tier is called has the tier's.
_SUFFIX = "-triton"
# What KServe appends for the Deployment of an InferenceService.
_DEPLOYMENT_SUFFIX = "-predictor"
# KServe shall make no way in from outside: apps call the Service of the entry.
_INSIDE = {"networking.kserve.io/visibility": "cluster-local"}
# Of a runtime's pod; all else stands in the InferenceService.
_RUNTIME_KEYS = ("containers", "volumes", "affinity", "tolerations")


def deployment_name(tier: Tier) -> str:
    """The Deployment that KServe makes."""
    return tier.name + _SUFFIX + _DEPLOYMENT_SUFFIX


def serving_runtime(export: Export, tier: Tier) -> Manifest:
    """How Triton is run for a tier."""
    pod, meta = pod_spec(export, tier, CONTAINER), pod_metadata(export, tier)
    spec: dict[str, Any] = {
        "labels": meta["labels"],
        "annotations": meta["annotations"],
        "supportedModelFormats": [{"name": MODEL_FORMAT, "version": "1", "autoSelect": False}],
        "protocolVersions": ["grpc-v2"],
        "multiModel": False,
        **{key: pod[key] for key in _RUNTIME_KEYS if key in pod},
    }
    data = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": export.meta(tier, _SUFFIX),
        "spec": spec,
    }
    return Manifest(f"{tier.name}/serving-runtime.yaml", data)


def inference_service(export: Export, tier: Tier) -> Manifest:
    """What KServe is to run for a tier. Models come from the volume of the runtime, so there is no
    storageUri."""
    many = scales(export, tier)
    pod = pod_spec(export, tier, CONTAINER)
    predictor: dict[str, Any] = {
        "minReplicas": 1,
        "maxReplicas": export.options.max_replicas if many else 1,
        **({} if many else {"deploymentStrategy": {"type": "Recreate"}}),
        **{key: value for key, value in pod.items() if key not in _RUNTIME_KEYS},
        "model": {
            "modelFormat": {"name": MODEL_FORMAT, "version": "1"},
            "runtime": tier.name + _SUFFIX,
            "protocolVersion": "grpc-v2",
        },
    }
    meta = export.meta(tier, _SUFFIX)
    meta["labels"] = {**labels(tier), **_INSIDE}
    meta["annotations"] = {
        "tritier/server": tier.server,
        # Deployments and Services without Knative, which speaks to one port and ends connections.
        "serving.kserve.io/deploymentMode": "RawDeployment",
        # The number of pods is left to the HorizontalPodAutoscaler beside it, if there is one.
        "serving.kserve.io/autoscalerClass": "external",
    }
    data = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": meta,
        "spec": {"predictor": predictor},
    }
    comment = "" if many else one_pod_comment(export, tier)
    return Manifest(f"{tier.name}/inference-service.yaml", data, comment)
