"""The exported manifests: valid by Kubernetes' schemas, names that meet, no secrets, one pod where
tensors meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.exported import COMPONENTS, protected, repositories, servers, tiers
from tests.helpers.manifest_checks import name_faults
from tests.helpers.manifests import edges, of_kind, read_export, workloads
from tests.helpers.plans import files_of, make_plan
from tests.helpers.validate_export import main, object_faults, pod_faults
from tritier.documents import ServersSpec
from tritier.errors import InputError
from tritier.export import read_tiers, write_export
from tritier.export.kubernetes import kubernetes_files
from tritier.export.kubernetes_options import KubernetesOptions
from tritier.files import write_file
from tritier.repository import GenerateOptions, Repositories, write_files

GPU = servers(
    {
        "b": {"execution_provider": "cuda", "memory_mib": 2048, "threads": 3, "instances": 2},
        "a": {"security": {"http": True}},
    }
)
# What the export of each kind must hold without a fault.
KINDS: dict[str, tuple[ServersSpec, dict[str, Any]]] = {
    "plain": (servers(), {}),
    "protected": (protected(), {}),
    "gpu, memory, http": (GPU, {"storage_class": "fast"}),
    "one pod": (servers(), {"max_replicas": 1, "namespace": "one-pod", "monitoring": "prom"}),
    "kserve": (servers(), {"kserve": True}),
    "kserve, protected, one pod": (protected(), {"kserve": True, "max_replicas": 1}),
    "kserve, gpu": (GPU, {"kserve": True}),
}


def exported(folder: Path, kind: str = "plain") -> dict[str, str]:
    """Files of a kind of export."""
    spec, options = KINDS[kind]
    return kubernetes_files(tiers(folder, spec), KubernetesOptions(**options))


def objects_of(folder: Path, kind: str = "plain") -> dict[str, dict[str, Any]]:
    return read_export(exported(folder, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_valid_and_all_names_meet(tmp_path: Path, kind: str) -> None:
    files = exported(tmp_path, kind)
    objects = read_export(files)
    assert {path: x for path, data in objects.items() if (x := object_faults(data))} == {}
    assert pod_faults(objects) == []
    assert name_faults(objects, files["README.md"]) == []
    kinds = {data["kind"] for data in objects.values()}
    runs = {"ServingRuntime", "InferenceService"} if "kserve" in kind else {"Deployment"}
    scales = set() if "one pod" in kind else {"HorizontalPodAutoscaler"}
    assert kinds == runs | scales | {
        "ConfigMap", "Kustomization", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "Pod",
        "PodDisruptionBudget", "PodMonitor", "Service",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "where", "value", "fault"),
    [
        ("b/deployment.yaml", "spec.replica", 1, "'replica' was unexpected"),
        ("b/deployment.yaml", "spec.replicas", "1", "'1' is not"),
        ("b/deployment.yaml", "spec.template.spec.containers.0.port", [], "'port' was unexpected"),
        ("b/service.yaml", "spec.ports.0.port", "grpc", "'grpc' is not"),
        ("a/horizontal-pod-autoscaler.yaml", "spec.metric", [], "'metric' was unexpected"),
        ("b/network-policy.yaml", "spec.ingres", [], "'ingres' was unexpected"),
        ("b/pod-monitor.yaml", "spec.podMetricsEndpoints.0.ports", "x", "'ports' was unexpected"),
        ("b/pod-monitor.yaml", "spec.podMetricsEndpoints.0.scheme", "ftp", "'ftp' is not one of"),
        ("kustomization.yaml", "resource", [], "unknown key resource"),
    ],
)
def test_a_wrong_object_is_found(
    tmp_path: Path, path: str, where: str, value: object, fault: str
) -> None:
    objects = objects_of(tmp_path)
    _set(objects[path], where, value)
    assert fault in "; ".join(object_faults(objects[path]))


@pytest.mark.parametrize(
    ("path", "where", "value", "fault"),
    [
        ("b/serving-runtime.yaml", "spec.container", [], "'container' was unexpected"),
        ("b/serving-runtime.yaml", "spec.multiModel", "no", "'no' is not of type"),
        ("b/inference-service.yaml", "spec.predictor.maxReplica", 1, "'maxReplica' was unexpected"),
        ("b/inference-service.yaml", "spec.predictor.model.runtime", 1, "1 is not of type"),
    ],
)
def test_a_wrong_object_of_kserve_is_found(
    tmp_path: Path, path: str, where: str, value: object, fault: str
) -> None:
    objects = objects_of(tmp_path, "kserve")
    _set(objects[path], where, value)
    assert fault in "; ".join(object_faults(objects[path]))


def test_a_wrong_pod_of_kserve_is_found(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, "kserve")
    _set(objects["b/serving-runtime.yaml"], "spec.containers.0.readinessProbe.grpc.port", "grpc")
    (first, *_) = pod_faults(objects)
    assert first.startswith("pod of b: 1.33: spec.containers[0].readinessProbe")


_CONTAINER = "spec.template.spec.containers.0"


@pytest.mark.parametrize(
    ("path", "where", "value", "fault"),
    [
        ("b/service.yaml", "metadata.name", "b_b", "'b_b' is no DNS label"),
        ("b/service.yaml", "metadata.labels.x", "-", "label x: '-' can't be one"),
        ("b/service.yaml", "metadata.namespace", "else", "namespaces: ['else', 'tritier']"),
        ("b/service.yaml", "spec.selector", {"app.kubernetes.io/name": "tritier"}, "selects ['b',"),
        ("load/b.yaml", "metadata.labels.app.kubernetes.io/name", "tritier", "'b-loader']"),
        (
            "b/pod-monitor.yaml",
            "spec.selector.matchLabels.a",
            "b",
            "b/pod-monitor.yaml: selects []",
        ),
        ("b/service.yaml", "spec.ports.0.targetPort", "http", "b/service.yaml: port 'http'"),
        ("b/network-policy.yaml", "spec.ingress.0.ports.0.port", "x", "port 'x'"),
        ("b/pod-monitor.yaml", "spec.podMetricsEndpoints.0.port", "x", "port 'x'"),
        ("b/deployment.yaml", f"{_CONTAINER}.livenessProbe.grpc.port", 1, "livenessProbe asks"),
        ("b/deployment.yaml", f"{_CONTAINER}.volumeMounts", [], "b: volumes"),
        ("b/config-map.yaml", "metadata.name", "c", "b: ConfigMap 'b-config' is not exported"),
        ("b/persistent-volume-claim.yaml", "metadata.name", "c", "b: PersistentVolumeClaim"),
        (
            "a/horizontal-pod-autoscaler.yaml",
            "spec.scaleTargetRef.name",
            "c",
            "c: strategy Recreate",
        ),
        ("a/horizontal-pod-autoscaler.yaml", "spec.scaleTargetRef.name", "x", "autoscaler of 'x'"),
        ("a/deployment.yaml", "spec.replicas", 1, "a: scaled, and its number"),
        ("c/deployment.yaml", "spec.replicas", 2, "c: one pod, and its number"),
        ("b/config-map.yaml", "data.peers.json", '{"a": "a:1", "b": "b:1", "c": "c:8001"}', "a at"),
        ("b/config-map.yaml", "data.peers.json", '{"a": "127.0.0.1:8001"}', "knows ['a']"),
        ("kustomization.yaml", "resources", [], "too many or missing"),
        ("b/deployment.yaml", "spec.template.spec.terminationGracePeriodSeconds", 30, "by force"),
        ("b/service.yaml", "kind", "Secret", "a Secret is exported"),
    ],
)
def test_names_that_do_not_meet_are_found(
    tmp_path: Path, path: str, where: str, value: object, fault: str
) -> None:
    files = exported(tmp_path)
    objects = read_export(files)
    _set(objects[path], where, value)
    assert fault in "\n".join(name_faults(objects, files["README.md"]))


def test_a_secret_that_nobody_is_told_to_make_is_found(tmp_path: Path) -> None:
    files = exported(tmp_path, "protected")
    readme = files["README.md"].replace("--from-file=ca=FILE ", "", 1)
    (fault,) = name_faults(read_export(files), readme)
    assert fault.startswith("b: README.md makes b-secrets with ['server_cert'")


def test_only_callers_reach_a_tier(tmp_path: Path) -> None:
    objects = objects_of(tmp_path)
    assert edges(objects) == {("a", "b"), ("a", "c"), ("b", "c")}
    entry = objects["a/network-policy.yaml"]["spec"]["ingress"]
    apps = {"matchLabels": {"tritier/client": "true"}}
    assert entry[0]["from"] == [{"podSelector": apps}, {"namespaceSelector": apps}]
    for name in "abc":
        metrics = objects[f"{name}/network-policy.yaml"]["spec"]["ingress"][-1]
        assert [port["port"] for port in metrics["ports"]] == ["metrics"]
        (space,) = metrics["from"]
        assert space["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "monitoring"
        }


def test_a_mailbox_is_in_one_pod(tmp_path: Path) -> None:
    """b hands t1 to c: what waits in c must be found there."""
    files = exported(tmp_path)
    objects = read_export(files)
    assert "c/horizontal-pod-autoscaler.yaml" not in objects
    spec = objects["c/deployment.yaml"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert "# Tensors wait for each other in the mailbox" in files["c/deployment.yaml"]
    assert "mailbox" not in files["b/deployment.yaml"].split("apiVersion")[0]
    for name in "ab":
        scaler = objects[f"{name}/horizontal-pod-autoscaler.yaml"]["spec"]
        assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 3)
        assert "replicas" not in objects[f"{name}/deployment.yaml"]["spec"]


def test_connections_are_renewed_where_there_may_be_several_pods(tmp_path: Path) -> None:
    found = {
        name: "--grpc-max-connection-age=60000" in pod["containers"][0]["command"]
        for name, (_, pod) in workloads(objects_of(tmp_path)).items()
    }
    assert found == {"a": True, "b": True, "c": False}


def test_kserve_starts_one_pod_where_there_is_a_mailbox(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, "kserve")
    found = {
        x["metadata"]["annotations"]["tritier/server"]: x["spec"]["predictor"]["maxReplicas"]
        for x in of_kind(objects, "InferenceService")
    }
    assert found == {"a": 3, "b": 3, "c": 1}


def test_a_server_on_which_nothing_computes_is_not_scaled(tmp_path: Path) -> None:
    found = read_tiers(repositories(tmp_path, ["b: t0 -> t9"]), servers())
    files = kubernetes_files(found)
    assert "a/horizontal-pod-autoscaler.yaml" not in files
    assert "# No model computes here" in files["a/deployment.yaml"]
    assert "b/horizontal-pod-autoscaler.yaml" in files


@pytest.mark.parametrize("kind", KINDS)
def test_pods_may_do_nothing_that_they_need_not(tmp_path: Path, kind: str) -> None:
    objects = objects_of(tmp_path, kind)
    pods = [spec for _, spec in workloads(objects).values()]
    pods += [data["spec"] for data in of_kind(objects, "Pod")]
    assert len(pods) == 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_what_a_server_gets_is_what_the_servers_file_says(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, "gpu, memory, http")
    spec = objects["b/deployment.yaml"]["spec"]["template"]["spec"]
    # 2048 MiB, and /dev/shm: 64 MiB, two proxies of 8 MiB ... all of which is memory of the pod.
    (shm,) = (v["emptyDir"] for v in spec["volumes"] if v["name"] == "shm")
    assert shm["medium"] == "Memory"
    size = int(shm["sizeLimit"].removesuffix("Mi"))
    memory = f"{2048 + size}Mi"
    assert spec["containers"][0]["resources"] == {
        "requests": {"cpu": "6", "memory": memory, "nvidia.com/gpu": "1"},
        "limits": {"memory": memory, "nvidia.com/gpu": "1"},
    }
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"][0]["matchExpressions"]
    assert (term["key"], term["values"]) == ("tritier/tier", ["edge"])
    other = objects["c/deployment.yaml"]["spec"]["template"]["spec"]
    assert set(other["containers"][0]["resources"]) == {"requests"}
    assert "tolerations" not in other
    ports = {port["name"] for port in objects["a/service.yaml"]["spec"]["ports"]}
    assert ports == {"grpc", "http"}
    assert {x["spec"]["storageClassName"] for x in of_kind(objects, "PersistentVolumeClaim")} == {
        "fast"
    }


def test_shared_memory_holds_a_full_mailbox(tmp_path: Path) -> None:
    objects = objects_of(tmp_path)
    sizes = {}
    for name in "abc":
        volumes = objects[f"{name}/deployment.yaml"]["spec"]["template"]["spec"]["volumes"]
        (shm,) = (volume["emptyDir"] for volume in volumes if volume["name"] == "shm")
        sizes[name] = int(shm["sizeLimit"].removesuffix("Mi"))
    assert sizes["c"] >= 256 + 64  # `--mailbox-mib` is 256
    assert 64 < sizes["a"] < 256


def test_a_pod_starts_with_exactly_the_models_of_the_plan(tmp_path: Path) -> None:
    found = tiers(tmp_path)
    objects = read_export(kubernetes_files(found))
    for tier in found.tiers:
        pod = objects[f"{tier.name}/deployment.yaml"]["spec"]["template"]["spec"]
        command = pod["containers"][0]["command"]
        loaded = [x.partition("=")[2] for x in command if x.startswith("--load-model=")]
        assert loaded == [m.name for m in found.repositories.models_of(tier.server)]
        assert f"--model-repository=/models/{found.repositories.id}" in command
        assert "--strict-readiness=false" in command
        sums = objects[f"{tier.name}/config-map.yaml"]["data"]["files.sha256"].splitlines()
        files = [f for f in found.repositories.manifest.files
                 if f.path.startswith(f"{tier.server}/")]  # fmt: skip
        assert len(sums) == len(files)
        assert f"{files[0].sha256}  {files[0].path.partition('/')[2]}" in sums
        (check,) = pod["initContainers"]
        assert check["workingDir"] == f"/models/{found.repositories.id}"


def test_pods_start_anew_with_another_config(tmp_path: Path) -> None:
    def digests(files: dict[str, str]) -> set[str]:
        found = of_kind(read_export(files), "Deployment")
        return {x["spec"]["template"]["metadata"]["annotations"]["tritier/config"] for x in found}

    before = digests(exported(tmp_path / "one"))
    assert before == digests(exported(tmp_path / "two"))
    other = read_tiers(repositories(tmp_path / "three", ["b: t0 -> t1", "a: t1 -> t9"]), servers())
    assert len(before) == 3
    assert not before & digests(kubernetes_files(other))


def test_triton_waits_for_the_longest_call(tmp_path: Path) -> None:
    """35 s and 5 s more; with 10 s before and after that, 60 s until Kubernetes ends a pod."""
    options = GenerateOptions(deadline_ms=35_000)
    write_files(files_of(make_plan(COMPONENTS), options=options), tmp_path / "repos", force=False)
    found = read_tiers(Repositories.open(tmp_path / "repos"), servers())
    for name, (_, pod) in workloads(read_export(kubernetes_files(found))).items():
        command = pod["containers"][0]["command"]
        assert "--exit-timeout-secs=40" in command, name
        assert pod["terminationGracePeriodSeconds"] == 60


def test_probes_ask_by_grpc_and_with_tls_by_a_program(tmp_path: Path) -> None:
    for kind, asked in (("plain", "grpc"), ("protected", "exec")):
        for _, pod in workloads(objects_of(tmp_path / kind, kind)).values():
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert asked in pod["containers"][0][probe]


@pytest.mark.parametrize("kind", ["protected", "kserve, protected, one pod"])
def test_nothing_secret_and_no_path_of_this_machine_is_exported(tmp_path: Path, kind: str) -> None:
    spec, options = KINDS[kind]
    files = kubernetes_files(tiers(tmp_path, spec), KubernetesOptions(**options))
    text = "\n".join(files.values())
    assert str(tmp_path) not in text
    for word in ("certs/", "admin.key", "BEGIN", "/work", "/home"):
        assert word not in text
    assert "@KEY@" in text  # Triton gets the key, and nobody sees it
    for _, pod in workloads(read_export(files)).values():
        (secret,) = (v["secret"] for v in pod["volumes"] if v["name"] == "secrets")
        assert [item["key"] for item in secret["items"]] == [
            "ca", "server_cert", "server_key", "client_cert", "client_key", "admin_key",
        ]  # fmt: skip
        assert secret["defaultMode"] == 0o440


def test_a_server_reaches_itself_in_its_pod(tmp_path: Path) -> None:
    peers = json.loads(objects_of(tmp_path / "x")["a/config-map.yaml"]["data"]["peers.json"])
    assert peers == {"a": "127.0.0.1:8001", "b": "b:8001", "c": "c:8001"}
    data = objects_of(tmp_path / "y", "protected")["a/config-map.yaml"]["data"]
    assert json.loads(data["peers.json"])["a"] == "a:8001"  # the name in its certificate
    assert json.loads(data["tls.json"])["ca"] == "/run/secrets/ca"


def test_the_report_has_a_line_per_file_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tiers(tmp_path)
    write_export("kubernetes", found, kubernetes_files(found), tmp_path / "out", force=False)
    assert main([str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list((tmp_path / "out").rglob("*.yaml"))) + 1
    assert lines[0].startswith("a/config-map.yaml: ConfigMap a-config [kubernetes-validate ")
    assert all(line.endswith(": OK") for line in lines)
    service = tmp_path / "out" / "b" / "service.yaml"
    write_file(service, service.read_text() + "kind: Service\n")
    assert main([str(tmp_path / "out")]) == 1
    assert "{'kind'} stand twice" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a-", "a.b", "a" * 64])
def test_a_name_that_no_namespace_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError) as refused:
        KubernetesOptions(namespace=name, monitoring=name)
    assert len(refused.value.faults) == 2
    assert f"--namespace {name}: is no name of a namespace" in refused.value.faults[0]


def _set(data: Any, where: str, value: object) -> None:
    """Set what a dotted path leads to; a key may have dots itself."""
    keys = where.split(".")
    while len(keys) > 1:
        if isinstance(data, list):
            data = data[int(keys.pop(0))]
        elif keys[0] in data:
            data = data[keys.pop(0)]
        else:
            break
    data[".".join(keys)] = value
