"""Protection of servers: the servers file, options, certificates, credentials; without servers."""

from __future__ import annotations

import copy
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tritier.deployment import security as protection
from tritier.deployment.access import (
    ADMIN_HEADER,
    Access,
    Address,
    address,
    connect,
    explained,
    is_of_protection,
    lab_addresses,
    spec_address,
)
from tritier.deployment.certificates import make_lab_certificates
from tritier.deployment.security import (
    RESTRICTED,
    LabProtection,
    peer_credentials,
    possible_protection,
    protect_lab,
    protected,
    server_options,
)
from tritier.deployment.versions import insecurity, readable_warnings, warnings_of
from tritier.documents import LabProcess, LabServer, LabState, Security, ServersSpec
from tritier.errors import InputError, ServerError
from tritier.resources import triton_dir

KEY = "0123456789abcdef0123456789ABCDEF"
TLS: dict[str, Any] = {"tls": True, "ca": "ca.pem"}


def spec_with(
    security: dict[str, Any] | None = None, edge: dict[str, Any] | None = None
) -> ServersSpec:
    rows: list[dict[str, Any]] = [
        {"name": "device", "tier": "device", "entry": True, "url": "127.0.0.1:1"},
        {"name": "edge", "tier": "edge", "url": "10.0.0.7:8001"},
    ]
    if edge is not None:
        rows[1]["security"] = edge
    document: dict[str, Any] = {"servers": rows}
    if security is not None:
        document["security"] = security
    return ServersSpec.from_data(document)


@pytest.mark.parametrize(
    ("security", "edge", "expected"),
    [
        ({"admin_key": KEY}, None, "security.admin_key: a key does not belong in this file"),
        ({}, {"token": KEY}, r"servers\[1\].security.token: a key does not belong"),
        ({"admin_key_file": KEY}, None, "admin_key_file: looks like the key"),
        ({"admin_key_variable": KEY}, None, "is no name of an environment variable"),
        ({"ca": f"-----BEGIN CERTIFICATE-----\n{KEY}"}, None, "is the content of a file"),
        ({"admin_key_file": "k", "admin_key_variable": "K"}, None, "give one of them"),
        ({"tls": True}, None, "'device': tls needs `ca`"),
        ({"mutual": True}, None, "mutual needs `tls: true`"),
        ({**TLS, "mutual": True}, None, "mutual needs client_cert and client_key"),
        ({**TLS, "client_cert": "c"}, None, "client_cert and client_key belong together"),
        (TLS, {"server_key": "k"}, "'edge': server_cert and server_key belong together"),
        (TLS, {"tls": False}, "tls is on for some servers and off for others"),
        ({"tsl": True}, None, "did you mean 'tls'"),
        ({"tls": "yes"}, None, "should be a valid boolean"),
    ],
)
def test_faults_of_the_servers_file(security: Any, edge: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        spec_with(security, edge)
    assert KEY not in str(caught.value)


def test_a_servers_own_security_goes_over_that_of_all() -> None:
    spec = spec_with(
        {**TLS, "admin_key_file": "all.key", "server_name": "triton"},
        {"server_cert": "e.pem", "server_key": "e.key", "admin_key_variable": "EDGE_KEY"},
    )
    edge = spec.security_of("edge")
    assert (edge.tls, edge.ca, edge.server_cert) == (True, "ca.pem", "e.pem")
    assert (edge.admin_key_file, edge.admin_key_variable) == (None, "EDGE_KEY")
    assert spec.security_of("device").admin_key_file == "all.key"
    assert spec_with().security_of("edge") == Security()


def test_paths_are_relative_to_the_servers_file(tmp_path: Path) -> None:
    text = "servers:\n- {name: a, tier: edge, entry: true, security: {server_cert: s.pem,"
    text += " server_key: /k.key}}\nsecurity: {tls: true, ca: certs/ca.pem}\n"
    (tmp_path / "servers.yaml").write_text(text)
    found = ServersSpec.load(tmp_path / "servers.yaml").security_of("a")
    paths = (found.ca, found.server_cert, found.server_key)
    assert paths == (str(tmp_path / "certs/ca.pem"), str(tmp_path / "s.pem"), "/k.key")


def test_options_of_a_server() -> None:
    plain = server_options("a", Security())
    assert "--allow-http=false" in plain
    assert not any("ssl" in x or "restricted" in x for x in plain)
    assert "--allow-http=true" in server_options("a", Security(http=True))
    certs: dict[str, Any] = {
        "server_cert": "s.pem",
        "server_key": "s.key",
        "client_cert": "c",
        "client_key": "k",
    }
    tls = server_options("a", Security(**TLS, **certs))
    assert {"--grpc-use-ssl=true", "--grpc-server-cert=s.pem"} <= set(tls)
    assert not any("mutual" in x or "root-cert" in x for x in tls)
    mutual = server_options("a", Security(**TLS, **certs, mutual=True))
    assert {"--grpc-use-ssl-mutual=true", "--grpc-root-cert=ca.pem"} <= set(mutual)
    with pytest.raises(InputError, match="'a': a server with TLS needs server_cert"):
        server_options("a", Security(**TLS))


def test_the_key_is_a_placeholder_in_options() -> None:
    security = Security(admin_key_file="a.key")
    options = server_options("a", security)
    restriction = f"{','.join(RESTRICTED)}:tritier-admin=@KEY@"
    assert f"--grpc-restricted-protocol={restriction}" in options
    command = protected(["tritonserver", *options], security)
    assert command[:3] == [sys.executable, "-I", "-S"]
    assert command[4:6] == ["--key-file", "a.key"]
    assert protected(["tritonserver"], Security()) == ["tritonserver"]
    assert "--key-variable" in protected(["x"], Security(admin_key_variable="K"))


def test_addresses_carry_access_and_are_texts(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(KEY)
    spec = spec_with({"admin_key_file": str(tmp_path / "k")})
    found = spec_address(spec, "edge")
    assert found == "10.0.0.7:8001"
    assert json.dumps([found]) == '["10.0.0.7:8001"]'
    assert found is not None
    assert KEY not in repr(found.access)
    assert [copied.access for copied in (copy.copy(found), copy.deepcopy(found))] == [
        found.access,
        found.access,
    ]
    headers = []
    for admin in (True, False):
        client = connect(found, admin=admin)
        headers.append(dict(client._get_metadata(None)))
        client.close()
    assert headers == [{ADMIN_HEADER: KEY}, {}]


def test_tls_without_an_authority_is_never_plain() -> None:
    with pytest.raises(InputError, match=r"'edge' at 10\.0\.0\.7:1: tls needs `ca`"):
        address("edge", "10.0.0.7:1", Security(tls=True))


def test_addresses_of_a_lab() -> None:
    server = LabServer(
        name="device",
        process=LabProcess(pid=1, started_ticks=1),
        grpc_url="127.0.0.1:5",
        metrics_url="127.0.0.1:6",
        repository="r",
        log_file="l",
        shm_prefix="s",
        security=Security(tls=True, ca="/ca.pem", admin_key_file="/k"),
    )
    found = lab_addresses(LabState.from_data(json.loads(LabState(servers=(server,)).to_json())))
    assert found == {"device": "127.0.0.1:5"}
    assert (found["device"].access.ca, found["device"].access.restricted) == (Path("/ca.pem"), True)
    assert lab_addresses(None) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "can't be read: No such file"), ("short", "has no good key"), ("a b" * 9, "good key")],
)
def test_bad_keys_are_told_and_not_shown(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "k").write_text(content)
    with pytest.raises(InputError, match=expected) as caught:
        Access("edge", admin_key_file=tmp_path / "k").admin_key()
    assert "server 'edge'" in str(caught.value)
    assert content is None or content not in str(caught.value)


def test_a_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access("edge", admin_key_variable="TEST_ADMIN_KEY")
    with pytest.raises(InputError, match="TEST_ADMIN_KEY is not set"):
        access.admin_key()
    monkeypatch.setenv("TEST_ADMIN_KEY", f" {KEY}\n")
    assert access.admin_key() == KEY


@pytest.mark.parametrize(
    ("text", "access", "expected"),
    [
        ("This protocol is restricted, expecting", Access(), "give its key"),
        ("This protocol is restricted", Access(admin_key_file=Path("k")), "is not that of this"),
        ("ipv4:1: Socket closed", Access(), "if this server uses TLS"),
        ("ipv4:1: Socket closed", Access(ca=Path("c")), "may not accept the client's certificate"),
        ("SSL: CERTIFICATE_VERIFY_FAILED", Access(ca=Path("my.pem")), "not signed by my.pem"),
        ("VERIFY_FAILED: certificate is not yet valid", Access(ca=Path("c")), "compare the clocks"),
        ("Hostname Verification Check failed", Access(ca=Path("c")), "set server_name"),
        ("WRONG_VERSION_NUMBER", Access(ca=Path("c")), "does not use TLS"),
        ("Tls handshake failed", Access(ca=Path("c")), "check ca, client_cert"),
    ],
)
def test_failures_of_protection_say_what_to_do(text: str, access: Access, expected: str) -> None:
    error = InferenceServerException(text, status="StatusCode.UNAVAILABLE")
    assert expected in explained(error, Address("a:1", access))
    assert is_of_protection(error, Address("a:1", access))


def test_other_failures_stay_as_they_are() -> None:
    error = InferenceServerException("Connection refused", status="StatusCode.UNAVAILABLE")
    for access in (Access(), Access(ca=Path("c"))):
        assert explained(error, Address("a:1", access)).endswith("Connection refused")
        assert not is_of_protection(error, Address("a:1", access))


def test_certificates_of_a_lab_are_private_and_for_this_machine(tmp_path: Path) -> None:
    made = make_lab_certificates(tmp_path / "c", ["device", "edge"])
    files = list((tmp_path / "c").iterdir())
    assert len(files) == 7
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    # The private key of the authority is nowhere: nobody can sign with it later.
    assert not [file for file in files if file.name.startswith("ca") and "PRIVATE" in _text(file)]
    assert made["device"].server_key != made["edge"].server_key
    security = Security(tls=True).over(made["edge"])
    with pytest.raises(InputError, match="made for this machine alone"):
        address("edge", "10.0.0.7:8001", security)
    assert address("edge", "127.0.0.1:8001", security) == "127.0.0.1:8001"


def _text(file: Path) -> str:
    return file.read_text()


def test_what_a_lab_adds(tmp_path: Path) -> None:
    plain = protect_lab(spec_with(), LabProtection(), tmp_path)
    assert plain == {"device": Security(), "edge": Security()}
    assert list(tmp_path.iterdir()) == []
    found = protect_lab(spec_with(), LabProtection(mutual=True, admin_key=True), tmp_path)
    assert all(x.tls and x.mutual and x.restricted for x in found.values())
    key_file = tmp_path / "admin.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    first = key_file.read_text()
    protect_lab(spec_with(), LabProtection(admin_key=True), tmp_path)
    assert key_file.read_text() != first
    own = protect_lab(
        spec_with({"admin_key_variable": "K"}), LabProtection(admin_key=True), tmp_path
    )
    assert own["edge"].admin_key_variable == "K"
    assert own["edge"].admin_key_file is None


def test_a_lab_goes_on_without_its_own_key_where_none_can_be_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = LabProtection(mutual=True, admin_key=True)
    assert possible_protection(spec_with(), wanted) == (wanted, None)
    monkeypatch.setattr(protection, "hiding_obstacle", lambda: "no ptrace here")
    found, warning = possible_protection(spec_with(), wanted)
    assert found == LabProtection(mutual=True)
    assert "WITHOUT a key" in (warning or "")
    assert "no ptrace here" in (warning or "")
    nothing = LabProtection()
    assert possible_protection(spec_with(), nothing) == (nothing, None)
    # A key that the servers file wants is another matter.
    with pytest.raises(ServerError, match=r"device and edge can't be started .* no ptrace here"):
        possible_protection(spec_with({"admin_key_variable": "K"}), nothing)


def test_what_crosses_a_network_readable_is_told() -> None:
    urls = {
        name: spec_address(spec_with({"admin_key_file": "k"}), name) for name in ("device", "edge")
    }
    found = readable_warnings({name: url for name, url in urls.items() if url is not None})
    assert len(found) == 1
    assert found[0].startswith("server 'edge' at 10.0.0.7:8001 is called without TLS: tensors and")
    assert readable_warnings({"edge": address("edge", "10.0.0.7:1", Security(**TLS))}) == []


def test_what_proxies_are_told() -> None:
    assert peer_credentials({"edge": Security()}, "edge") is None
    own = Security(tls=True, ca="a", client_cert="c", client_key="k", server_name="own")
    text = peer_credentials({"device": own, "edge": own}, "device")
    assert json.loads(text or "") == {"ca": "a", "cert": "c", "key": "k", "server_name": "own"}
    # The name is that of the others.
    other = own.model_copy(update={"server_name": None})
    text = peer_credentials({"device": own, "edge": other}, "device")
    assert json.loads(text or "") == {"ca": "a", "cert": "c", "key": "k"}
    with pytest.raises(InputError, match="that 'device' calls have different server_name"):
        peer_credentials({"device": own, "edge": other, "cloud": own}, "device")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "can't be read"),
        ("{", "not JSON"),
        ("[]", "allowed is a JSON object"),
        ('{"ca": 1}', "allowed is a JSON object"),
        ('{"cert": "c", "key": "k"}', "`ca` is missing"),
        ('{"ca": "c", "cert": "k"}', "belong together"),
        ('{"ca": "c", "password": "x"}', "unknown \\['password'\\]"),
        ('{"ca": "missing.pem"}', "missing.pem.*can't be read"),
        ('{"ca": "tls.json"}', "is no PEM file"),
    ],
)
def test_bad_credentials_of_proxies(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_channel: Callable[..., Any],
    content: str | None,
    expected: str,
) -> None:
    if content is not None:
        (tmp_path / "tls.json").write_text(content)
    monkeypatch.setenv("TRITIER_TLS", str(tmp_path / "tls.json"))
    with pytest.raises(ValueError, match=expected):
        open_channel("127.0.0.1:1", [])


@pytest.fixture
def open_channel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.syspath_prepend(str(triton_dir() / "shared"))
    module = __import__("credentials")
    found: Callable[..., Any] = module.open_channel
    return found


def test_channels_of_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_channel: Callable[..., Any]
) -> None:
    open_channel("127.0.0.1:1", []).close()
    made = make_lab_certificates(tmp_path, ["edge"])["edge"]
    content = peer_credentials({"edge": Security(tls=True).over(made)}, "edge") or ""
    (tmp_path / "tls.json").write_text(content)
    monkeypatch.setenv("TRITIER_TLS", str(tmp_path / "tls.json"))
    open_channel("127.0.0.1:1", [("grpc.enable_retries", 0)]).close()


def test_warnings_about_old_versions() -> None:
    assert insecurity("2.70.0") is None
    assert "2.70.0 (26.06)" in (insecurity("2.69.0") or "")
    assert "no known form" in (insecurity("nightly") or "")
    versions = {"device": "2.51.0", "edge": "2.51.0", "far": "2.60.0", "new": "2.71.0"}
    found = warnings_of(versions, {"device", "edge"})
    assert len(found) == 2
    assert found[0].startswith("server 'far': Triton 2.60.0 lacks")
    assert found[1].startswith("the Triton of the lab")
