"""`tritier export kubernetes` as it is called, and what kubectl makes of its folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.exported import repositories, servers
from tests.helpers.manifests import files_in, read_export, workloads
from tests.helpers.validate_export import main as validate
from tritier.cli import main
from tritier.documents import ServersSpec


def called(folder: Path, *options: str, spec: ServersSpec | None = None) -> int:
    """Exit code of the command for the servers a, b and c; it writes to `out`."""
    if not (folder / "repos").exists():
        repositories(folder)
    file = folder / "servers.yaml"
    file.write_text((spec or servers()).to_json())
    words = ["export", "kubernetes", str(folder / "repos"), "--servers", str(file)]
    with pytest.raises(SystemExit) as ended:
        main([*words, "-o", str(folder / "out"), *options])
    return int(ended.value.code or 0)


def test_the_folder_is_written_and_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    found = files_in(tmp_path / "out")
    assert sorted([*json.loads(out)["files"], "export.json"]) == sorted(found)
    assert json.loads(found["export.json"])["kind"] == "kubernetes"
    assert "one pod of 'c': Tensors wait for each other" in err
    assert "one pod of 'b'" not in err
    assert validate([str(tmp_path / "out")]) == 0
    # Again: refused without --force, the same bytes with it.
    assert called(tmp_path) == 3
    assert called(tmp_path, "--force") == 0
    assert files_in(tmp_path / "out") == found


def test_options_reach_the_files(tmp_path: Path) -> None:
    options = ["--namespace", "ns", "--kserve", "--max-replicas", "1", "--image", "r/i:1",
               "--storage-class", "fast", "--monitoring-namespace", "prom"]  # fmt: skip
    assert called(tmp_path, *options) == 0
    found = files_in(tmp_path / "out")
    assert not [path for path in found if "autoscaler" in path or "deployment" in path]
    assert "namespace: ns\n" in found["a/service.yaml"]
    assert "image: r/i:1\n" in found["a/serving-runtime.yaml"]
    assert "storageClassName: fast\n" in found["a/persistent-volume-claim.yaml"]
    assert "kubernetes.io/metadata.name: prom\n" in found["a/network-policy.yaml"]
    assert validate([str(tmp_path / "out")]) == 0


def test_nothing_is_written_for_bad_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(tmp_path, "--namespace", "No") == 3
    assert "--namespace No: is no name of a namespace" in capsys.readouterr().err
    assert called(tmp_path, "--gpu-sharers", "2") == 2
    assert "no server of the plan has `execution_provider: cuda`" in capsys.readouterr().err
    assert called(tmp_path, "--dry-run") == 0
    assert "would write" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_time_slicing_is_for_the_device_plugin(tmp_path: Path) -> None:
    spec = servers({"b": {"execution_provider": "cuda"}})
    assert called(tmp_path, "--gpu-sharers", "4", spec=spec) == 0
    found = files_in(tmp_path / "out")
    data = yaml.safe_load(yaml.safe_load(found["time-slicing.yaml"])["data"]["any"])
    slicing = data["sharing"]["timeSlicing"]
    assert slicing["resources"] == [{"name": "nvidia.com/gpu", "replicas": 4}]
    assert "time-slicing" not in found["kustomization.yaml"]
    assert validate([str(tmp_path / "out")]) == 0


def test_the_check_of_a_pod_finds_models_that_are_not_those_of_the_plan(tmp_path: Path) -> None:
    """The init container's command, run on the folder that its volume would hold."""
    assert called(tmp_path) == 0
    objects = read_export(files_in(tmp_path / "out"))
    (check,) = workloads(objects)["b"][1]["initContainers"]
    sums = tmp_path / "files.sha256"
    sums.write_text(objects["b/config-map.yaml"]["data"]["files.sha256"])
    words = [word.replace("/etc/tritier/files.sha256", str(sums)) for word in check["command"]]

    def checked() -> int:
        done = subprocess.run(words, cwd=tmp_path / "repos" / "b", capture_output=True, check=False)
        return done.returncode

    assert checked() == 0
    (model,) = (tmp_path / "repos" / "b").rglob("model.onnx")
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    assert checked() == 1
    model.unlink()
    assert checked() == 1
    model.write_bytes(whole)
    sums.write_text(sums.read_text() + "no checksum\n")
    assert checked() == 1


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("options", [[], ["--kserve"]])
def test_kubectl_builds_the_kustomization(tmp_path: Path, options: list[str]) -> None:
    """As a client alone: no cluster is asked."""
    assert called(tmp_path, *options) == 0
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "out")],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    built = [item for item in yaml.safe_load_all(done.stdout) if item]
    listed = yaml.safe_load((tmp_path / "out" / "kustomization.yaml").read_text())["resources"]
    wanted = [yaml.safe_load((tmp_path / "out" / path).read_text()) for path in listed]

    def key(item: dict[str, dict[str, str]]) -> tuple[str, str]:
        return str(item["kind"]), item["metadata"]["name"]

    assert sorted(built, key=key) == sorted(wanted, key=key)
