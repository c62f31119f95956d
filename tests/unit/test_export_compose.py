"""The exported compose folder: valid by the Compose Specification, confined, without secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.helpers.exported import protected, servers, strict_yaml, tiers
from tritier.documents import Family, ServersSpec
from tritier.errors import InputError
from tritier.export import MARKER_NAME, Tiers, write_export
from tritier.export.compose import COMPOSE_NAME, RESERVED, compose_files
from tritier.export.compose_services import ComposeOptions, secret_files
from tritier.export.yaml_text import yaml_text
from tritier.repository import Repositories

# From the package check-jsonschema, which takes it from github.com/compose-spec/compose-spec.
SCHEMA = json.loads(
    (resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text()
)
VALIDATOR = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
KINDS = {
    "plain": servers(),
    "protected": protected(),
    "gpu, memory, http": servers(
        {"b": {"execution_provider": "cuda", "memory_mib": 2048}, "a": {"security": {"http": True}}}
    ),
}


def document(found: Tiers, **options: Any) -> dict[str, Any]:
    files, _ = compose_files(found, ComposeOptions(**options))
    parsed: dict[str, Any] = strict_yaml(files[COMPOSE_NAME])
    return parsed


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_valid_by_the_compose_specification(tmp_path: Path, kind: str) -> None:
    parsed = document(tiers(tmp_path, KINDS[kind]))
    assert [error.message for error in VALIDATOR.iter_errors(parsed)] == []
    assert set(parsed["services"]) == {"a", "b", "c", *RESERVED}


@pytest.mark.parametrize(
    ("key", "value"), [("commands", []), ("shm_size", []), ("healthcheck", {"tests": []})]
)
def test_the_schema_finds_what_is_wrong(tmp_path: Path, key: str, value: object) -> None:
    parsed = document(tiers(tmp_path))
    parsed["services"]["a"][key] = value
    assert list(VALIDATOR.iter_errors(parsed))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_named_exists(tmp_path: Path, kind: str) -> None:
    """Mounts lead to exported files, secrets, networks, volumes and services are declared."""
    found = tiers(tmp_path, KINDS[kind])
    files, copies = compose_files(found, ComposeOptions())
    parsed = strict_yaml(files[COMPOSE_NAME])
    exported = {*files, *copies}
    for service in parsed["services"].values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if not source.startswith("./"):
                assert source in parsed["volumes"]
                continue
            path = source.removeprefix("./")
            assert path in exported or any(name.startswith(f"{path}/") for name in exported)
        for secret in service.get("secrets", []):
            name = secret["source"] if isinstance(secret, dict) else secret
            assert name in parsed["secrets"]
        assert set(service["networks"]) <= set(parsed["networks"])
        assert set(service.get("depends_on", {})) <= set(parsed["services"])
    used = {x["source"] for s in parsed["services"].values() for x in s.get("secrets", [])
            if isinstance(x, dict)}  # fmt: skip
    assert set(parsed["secrets"]) == {*used, "grafana_password"}


@pytest.mark.parametrize("kind", KINDS)
def test_servers_are_confined(tmp_path: Path, kind: str) -> None:
    services = document(tiers(tmp_path, KINDS[kind]))["services"]
    for name in ("a", "b", "c", "tool", "loadtests"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"].startswith("${TRITIER_UID:-1000}")
        # `tritier verify` writes what it found beside the manifest.
        written = {volume["target"] for volume in service["volumes"] if not volume["read_only"]}
        assert written == ({"/plan"} if name == "tool" else set())
        assert "privileged" not in service
    published = {name for name, service in services.items() if "ports" in service}
    assert published == {"a", "prometheus", "grafana"}
    for name in published:
        for port in services[name]["ports"]:
            assert port.startswith(("127.0.0.1:", "${TRITIER_BIND:-127.0.0.1}:"))
    # Grafana has no way to the servers, and they none to it.
    assert services["grafana"]["networks"] == ["monitoring"]
    assert {tuple(services[name]["networks"]) for name in "abc"} == {("plane",)}


def test_limits_are_those_of_the_servers_file(tmp_path: Path) -> None:
    services = document(tiers(tmp_path, KINDS["gpu, memory, http"]), shm_mib=300)["services"]
    resources_of_b = services["b"]["deploy"]["resources"]
    assert resources_of_b["limits"] == {"memory": f"{2048 * 2**20}b"}
    assert resources_of_b["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "deploy" not in services["c"]
    assert services["c"]["shm_size"] == "300m"
    assert len(services["a"]["ports"]) == 2


@pytest.mark.parametrize("router", [False, True])
def test_the_entry_waits_for_those_that_it_calls(tmp_path: Path, router: bool) -> None:
    found = tiers(tmp_path)
    if router:  # a real one is in tests/golden/expected/compose_protected
        family = Family.model_construct()
        repositories = dataclasses.replace(found.repositories, family=family)
        found = dataclasses.replace(found, repositories=repositories)
    condition = "service_started" if router else "service_healthy"
    services = document(found)["services"]
    assert services["a"]["depends_on"] == {x: {"condition": condition} for x in "bc"}
    assert not any("depends_on" in services[name] for name in "bc")


def test_no_secret_and_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    spec_file = tmp_path / "servers.yaml"
    data = protected().model_dump(mode="json", by_alias=True, exclude_none=True)
    spec_file.write_text(json.dumps(data))
    (tmp_path / "admin.key").write_text("0123456789abcdef")
    found = tiers(tmp_path, ServersSpec.load(spec_file))
    files, _ = compose_files(found, ComposeOptions())
    text = "\n".join(files.values())
    assert str(tmp_path) not in text
    assert "0123456789abcdef" not in text
    assert not re.search(r"certs/|admin\.key", text)
    named = strict_yaml(files[COMPOSE_NAME])["secrets"]
    own = [f"{name}_server_{what}" for name in "bca" for what in ("cert", "key")]
    assert set(named) == {
        "ca", "client_cert", "client_key", "admin_key", "grafana_password", *own,
    }  # fmt: skip
    assert {item["file"] for item in named.values()} == {f"./secrets/{name}" for name in named}


def test_files_that_all_have_in_common_are_asked_for_once(tmp_path: Path) -> None:
    same = {item.name: item.servers for item in secret_files(tiers(tmp_path, protected()))}
    assert same["ca"] == ("b", "c", "a")
    assert same["b_server_key"] == ("b",)
    other = protected(b={"security": {"admin_key_file": "b.key"}})
    # With a certificate of its own; only the key differs.
    own = {"server_cert": "b.pem", "server_key": "b.key2", "admin_key_file": "b.key"}
    other = protected(b={"security": own})
    names = {item.name for item in secret_files(tiers(tmp_path / "other", other))}
    assert {"b_admin_key", "c_admin_key"} <= names
    assert "admin_key" not in names


@pytest.mark.parametrize("kind", KINDS)
def test_the_tools_servers_file_is_one(tmp_path: Path, kind: str) -> None:
    files, _ = compose_files(tiers(tmp_path, KINDS[kind]), ComposeOptions())
    (tmp_path / "inside.yaml").write_text(files["config/servers.yaml"])
    spec = ServersSpec.load(tmp_path / "inside.yaml")
    assert {server.name: server.url for server in spec.servers} == {x: f"{x}:8001" for x in "abc"}
    security = spec.security_of("b")
    assert security.server_key is None
    if kind == "protected":
        assert (security.tls, security.ca) == (True, "/run/secrets/ca")
        assert security.admin_key_file == "/run/secrets/admin_key"


def test_the_tool_has_the_key_of_each_server(tmp_path: Path) -> None:
    own = {"server_cert": "b.pem", "server_key": "b.crt", "admin_key_file": "b.key"}
    found = tiers(tmp_path, protected(b={"security": own}))
    files, _ = compose_files(found, ComposeOptions())
    (tmp_path / "inside.yaml").write_text(files["config/servers.yaml"])
    spec = ServersSpec.load(tmp_path / "inside.yaml")
    mounted = {
        f"/run/secrets/{secret['target']}": secret["source"]
        for secret in strict_yaml(files[COMPOSE_NAME])["services"]["tool"]["secrets"]
    }
    named = {name: str(spec.security_of(name).admin_key_file) for name in "abc"}
    assert named["a"] == named["c"] != named["b"]
    assert {mounted[path] for path in named.values()} == {"b_admin_key", "c_admin_key"}


def export(found: Tiers, output: Path, force: bool = False) -> None:
    files, copies = compose_files(found, ComposeOptions())
    write_export("compose", found, files, output, force, copies, kept=["secrets"])


def test_a_folder_is_exported_whole_and_alike(tmp_path: Path) -> None:
    found = tiers(tmp_path)
    for name in ("one", "two"):
        export(found, tmp_path / name)
    trees = [
        {str(p.relative_to(tmp_path / name)): p.read_bytes()
         for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "two")
    ]  # fmt: skip
    assert trees[0] == trees[1]
    # The exported repositories are the generated ones, and can be opened as such.
    assert Repositories.open(tmp_path / "one" / "repositories").plan == found.repositories.plan
    marker = json.loads(trees[0][MARKER_NAME])
    assert marker["plan_id"] == found.repositories.id
    assert marker["kind"] == "compose"


def test_what_is_not_generated_is_not_copied(tmp_path: Path) -> None:
    found = tiers(tmp_path)
    (tmp_path / "repos" / "b" / "stranger").mkdir()
    export(found, tmp_path / "out")
    assert not (tmp_path / "out" / "repositories" / "b" / "stranger").exists()


def test_only_what_was_exported_is_replaced_and_secrets_stay(tmp_path: Path) -> None:
    found, output = tiers(tmp_path), tmp_path / "out"
    export(found, output)
    with pytest.raises(InputError, match="is not empty: choose another folder or pass --force"):
        export(found, output)
    key = output / "secrets" / "admin_key"
    key.write_text("k")
    key.chmod(0o600)
    (output / "mine.txt").write_text("")
    export(found, output, force=True)
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("k", 0o600)
    assert not (output / "mine.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    for force in (False, True):
        with pytest.raises(InputError, match="was not exported and is never replaced"):
            export(found, other, force)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="lies in the generated folder"):
        export(found, tmp_path / "repos" / "out")


def test_containers_can_read_it_whatever_the_umask_and_secrets_are_private(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        found = tiers(tmp_path)
        export(found, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path / "out")): path.stat().st_mode & 0o777
        for path in (tmp_path / "out").rglob("*")
    }
    assert modes.pop("secrets") == 0o700
    assert {modes["prometheus"], modes["repositories/b"]} == {0o755}
    assert set(modes.values()) == {0o755, 0o644}
    assert modes["prometheus/prometheus.yml"] == modes["repositories/manifest.json"] == 0o644


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    found = tiers(tmp_path)
    files, copies = compose_files(found, ComposeOptions())
    gone = {**copies, "repositories/gone": tmp_path / "gone"}
    with pytest.raises(FileNotFoundError):
        write_export("compose", found, files, tmp_path / "out", False, gone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repos"]


@pytest.mark.parametrize(
    "text", ["on", "no", "8001", "1e3", "0x1f", "~", "null", "a: b", "# x", ""]
)
def test_texts_stay_texts(text: str) -> None:
    assert strict_yaml(yaml_text("header", {"key": text, "list": [text]})) == {
        "key": text,
        "list": [text],
    }


def test_a_key_that_stands_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="stand twice"):
        strict_yaml("a: 1\nb: {c: 1, c: 2}\n")
