"""What is read out of a generated folder and a servers file, for containers."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.exported import COMPONENTS, protected, repositories, servers, tiers
from tests.helpers.plans import files_of, make_plan
from tritier.documents import Security
from tritier.errors import InputError
from tritier.export import SecretSource, read_tiers
from tritier.export.tiers import in_container
from tritier.repository import Repositories, write_files


def test_one_tier_per_server_of_the_plan(tmp_path: Path) -> None:
    found = tiers(tmp_path, servers({"b": {"execution_provider": "cuda", "memory_mib": 512.5}}))
    assert [tier.server for tier in found.tiers] == ["b", "c", "a"]  # the entry last
    assert [tier.is_entry for tier in found.tiers] == [False, False, True]
    assert found.entry is found.tier("a")
    assert [tier.label for tier in found.tiers] == ["edge", "cloud", "device"]
    assert [tier.needs_gpu for tier in found.tiers] == [True, False, False]
    assert [tier.memory_bytes for tier in found.tiers] == [537_395_200, None, None]
    assert found.tier("b").repository == tmp_path / "repos" / "b"
    assert json.loads(found.peers_json()) == {x: f"{x}:8001" for x in "abc"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.entry.name = "d"  # type: ignore[misc]


def test_who_calls_whom_is_what_the_generated_configs_say(tmp_path: Path) -> None:
    found = tiers(tmp_path)
    calls = {tier.server: tier.calls for tier in found.tiers}
    # a calls both; b puts t1 into c's mailbox.
    assert calls == {"a": ("b", "c"), "b": ("c",), "c": ()}
    assert {x: found.callers(x) for x in "abc"} == {"a": (), "b": ("a",), "c": ("b", "a")}


def test_a_server_that_only_poisons_a_mailbox_calls_it(tmp_path: Path) -> None:
    """c fails: who waits in b's mailbox for what c makes of it is told by the entry's proxy."""
    components = ("b: t0 -> t1", "c: t1 -> t2", "b: t1 t2 -> t3", "a: t3 -> t9")
    found = read_tiers(repositories(tmp_path, components), servers())
    assert {tier.server: tier.calls for tier in found.tiers} == {
        "a": ("b", "c"),
        "b": ("c",),
        "c": ("b",),
    }


def test_servers_without_models_are_left_out(tmp_path: Path) -> None:
    found = read_tiers(repositories(tmp_path, ["b: t0 -> t1", "a: t1 -> t9"]), servers())
    assert [tier.server for tier in found.tiers] == ["b", "a"]
    assert list(json.loads(found.peers_json())) == ["a", "b"]


def test_the_command_of_a_plain_server(tmp_path: Path) -> None:
    command = tiers(tmp_path).tier("b").command
    assert command[0] == "tritonserver"
    for option in (
        "--id=b",
        "--model-repository=/models",
        "--load-model=*",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--grpc-port=8001",
        "--metrics-port=8002",
        "--allow-http=false",
        "--allow-gpu-metrics=false",
    ):
        assert command.count(option) == 1
    assert not [x for x in command if "ssl" in x or "http-port" in x or "restricted" in x]
    names = [x.partition("=")[0] for x in command[1:] if not x.startswith("--backend-config")]
    assert len(names) == len(set(names))


def test_the_command_of_a_protected_server_names_files_of_the_container(tmp_path: Path) -> None:
    tier = tiers(tmp_path, protected()).tier("b")
    command = tier.command
    assert command[:7] == [
        "python3", "-I", "-S", "/opt/tritier/hidden_key.py", "--key-file", "/run/secrets/admin_key",
        "--",
    ]  # fmt: skip
    assert "--grpc-server-cert=/run/secrets/server_cert" in command
    assert "--grpc-root-cert=/run/secrets/ca" in command
    assert [x for x in command if "restricted" in x and x.endswith("tritier-admin=@KEY@")]
    assert "certs" not in shlex.join(command)
    assert tier.probe(live=True)[-2:] == ["--live", "--server-name=b"]
    assert [secret.target for secret in tier.secrets] == [
        f"/run/secrets/{key}"
        for key in ("ca", "server_cert", "server_key", "client_cert", "client_key", "admin_key")
    ]


def test_the_tls_file_of_a_container_has_paths_alone(tmp_path: Path) -> None:
    found = tiers(tmp_path, protected())
    assert json.loads(found.tls_json(found.entry) or "") == {
        "ca": "/run/secrets/ca",
        "cert": "/run/secrets/client_cert",
        "key": "/run/secrets/client_key",
    }
    plain = tiers(tmp_path / "plain")
    assert plain.tls_json(plain.entry) is None
    assert plain.entry.environment == {"TRITIER_PEERS": "/etc/tritier/peers.json"}


def test_a_key_of_a_variable_is_a_file_in_the_container(tmp_path: Path) -> None:
    spec = servers(security={"admin_key_variable": "OUR_KEY"})
    tier = tiers(tmp_path, spec).entry
    assert tier.secrets == (SecretSource("admin_key", variable="OUR_KEY"),)
    assert "OUR_KEY" not in shlex.join(tier.command)
    assert tier.command[4:6] == ["--key-file", "/run/secrets/admin_key"]


@pytest.mark.parametrize("http", [None, False, True])
def test_http_is_off_unless_it_is_wanted(tmp_path: Path, http: bool | None) -> None:
    security = {} if http is None else {"http": http}
    tier = tiers(tmp_path, servers({"a": {"security": security}})).entry
    assert tier.ports.http == (8000 if http else None)
    assert ("--http-port=8000" in tier.command) is bool(http)
    assert ("--allow-http=true" in tier.command) is bool(http)


def test_a_security_without_tls_keeps_no_certificates() -> None:
    found = in_container(Security(ca="ca.pem", admin_key_variable="K", http=True))
    assert found == Security(http=True, admin_key_file="/run/secrets/admin_key")


def test_plan_and_servers_file_must_fit(tmp_path: Path) -> None:
    repos = repositories(tmp_path)
    few = servers()
    few = few.model_copy(update={"servers": few.servers[:2]})
    with pytest.raises(InputError, match="the plan uses server 'c'; the servers file has a, b"):
        read_tiers(repos, few)
    other = servers({"a": {"entry": False}, "b": {"entry": True}})
    with pytest.raises(InputError, match="entry of the plan is 'a' and that of the servers file"):
        read_tiers(repos, other)
    with pytest.raises(InputError, match="'b' would be the service 'b', which is exported beside"):
        read_tiers(repos, servers(), reserved=["b"])


def test_servers_that_would_be_one_service_are_refused(tmp_path: Path) -> None:
    data: Any = make_plan(COMPONENTS).model_dump(mode="json", by_alias=True, exclude_none=True)
    del data["plan_id"]
    text = json.dumps(data).replace('"b"', '"x_1"').replace('"c"', '"x-1"')
    plan = type(make_plan(COMPONENTS)).from_data(json.loads(text))
    write_files(files_of(plan), tmp_path / "repos", force=False)
    spec = servers({"b": {"name": "x_1"}, "c": {"name": "x-1"}})
    with pytest.raises(InputError, match="'x_1' and 'x-1' would both be the service 'x-1'"):
        read_tiers(Repositories.open(tmp_path / "repos"), spec)


def test_tls_without_a_servers_certificate_is_refused(tmp_path: Path) -> None:
    spec = servers(security={"tls": True, "ca": "ca.pem"})
    with pytest.raises(InputError, match="needs server_cert and server_key"):
        tiers(tmp_path, spec)
