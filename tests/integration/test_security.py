"""Mutual TLS on every link and a key for administrative APIs, on real Tritons."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from tests.helpers import no_ptrace
from tests.helpers.processes import children_of, words_of
from tests.integration.conftest import NAMES, Bench, peer_plan
from tritier.deployment.access import ADMIN_HEADER, Access, Address, connect, lab_addresses
from tritier.deployment.certificates import make_lab_certificates
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import deploy, find_addresses, undeploy
from tritier.deployment.lab import Lab
from tritier.deployment.security import RESTRICTED, LabProtection
from tritier.documents import LabState, ServersSpec
from tritier.errors import ServerError
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.resources import example_dir, triton_dir
from tritier.workflow import gather_inputs, generate, verify_live

NO_PTRACE = (sys.executable, "-I", "-S", no_ptrace.__file__)
pytestmark = pytest.mark.integration


@dataclasses.dataclass
class Protected:
    """A lab with mutual TLS and a key, and a plan that is generated for it."""

    folder: Path
    spec: ServersSpec
    state: LabState
    repos: Repositories

    @property
    def addresses(self) -> dict[str, Address]:
        return lab_addresses(self.state)

    @property
    def key(self) -> str:
        return self.addresses["device"].access.admin_key()

    def reached(self, **changes: Any) -> Address:
        """The device's address, with another access."""
        found = self.addresses["device"]
        return Address(str(found), dataclasses.replace(found.access, **changes))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, espcn: LoadedModel) -> Iterator[Protected]:
    folder = tmp_path_factory.mktemp("protected")
    servers = [{"name": n, "tier": n, "entry": n == "device"} for n in NAMES]
    # Every link goes through a relay: what it carries are bytes of TLS.
    links = [{"from": a, "to": b, "latency_ms": 1} for a in NAMES for b in NAMES if a != b]
    spec = ServersSpec.from_data({"servers": servers, "links": links})
    files, _ = generate(peer_plan(espcn, spec), espcn, GenerateOptions(optimisation="disabled"))
    write_files(files, folder / "repos", force=False)
    running = Lab(folder / "lab")
    protection = LabProtection(mutual=True, admin_key=True)
    state = running.up(spec, folder / "repos", protection=protection)
    try:
        yield Protected(folder, spec, state, Repositories.open(folder / "repos"))
    finally:
        running.down()


@pytest.fixture(scope="module")
def deployed(lab: Protected) -> Iterator[Protected]:
    addresses = find_addresses(lab.repos, lab.spec, lab.state)
    deploy(lab.repos, addresses)
    yield lab
    assert undeploy(lab.repos, addresses) == []


def test_the_split_model_equals_the_whole_one(deployed: Protected, espcn: LoadedModel) -> None:
    repos = deployed.repos
    inputs = gather_inputs(repos.plan, 3, 0)
    exact = repos.manifest.tolerances[0]
    # An app needs a certificate, but no key.
    app = deployed.reached(admin_key_file=None)
    verdict = verify_live(repos, espcn, inputs, exact, app)
    assert [d.max_abs for d in verdict.differences] == [0.0]


@pytest.mark.parametrize("server", NAMES)
def test_every_server_speaks_tls_alone(lab: Protected, server: str) -> None:
    url = str(lab.addresses[server])
    with (
        closing(triton.InferenceServerClient(url)) as plain,  # nothing of this project
        pytest.raises(InferenceServerException, match="UNAVAILABLE"),
    ):
        plain.is_server_live(client_timeout=5)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("plain", "set tls and ca in `security`"),
        ("no certificate", "may not accept the client's certificate .none: set client_cert"),
        ("another's certificate", "may not accept the client's certificate .*other/client.pem"),
        ("another's ca", "the server's certificate is not signed by .*other/ca.pem"),
        ("another name", "has another name: set server_name"),
    ],
)
def test_who_is_refused_is_told_why(lab: Protected, case: str, expected: str) -> None:
    other = make_lab_certificates(lab.folder / "other", ["device"])["device"]
    changes: dict[str, dict[str, Any]] = {
        "plain": {"ca": None},
        "no certificate": {"client_cert": None, "client_key": None},
        "another's certificate": {
            "client_cert": Path(str(other.client_cert)),
            "client_key": Path(str(other.client_key)),
        },
        "another's ca": {"ca": Path(str(other.ca))},
        "another name": {"server_name": "edge"},
    }
    with TritonServer("device", lab.reached(**changes[case])) as server:
        with pytest.raises(ServerError, match=expected) as caught:
            server.version()
        assert "server 'device' (127.0.0.1:" in str(caught.value)
        # Waiting does not help: it is told at once.
        started = time.monotonic()
        with pytest.raises(ServerError, match=expected):
            server.wait_until_live(60)
        assert time.monotonic() - started < 30
    with TritonServer("device", lab.reached()) as server:  # the control
        assert server.version() == "2.51.0"


def test_tls_against_a_plain_server_is_told(bench: Bench, lab: Protected) -> None:
    url = Address(bench.state.urls["device"], lab.addresses["device"].access)
    with TritonServer("device", url) as server, pytest.raises(ServerError) as caught:
        server.version()
    assert "server 'device'" in str(caught.value)
    assert "TLS" in str(caught.value)


def test_proxies_refuse_what_they_can_not_verify(
    lab: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(triton_dir() / "shared"))
    open_channel = __import__("credentials").open_channel
    made = Path(lab.state.servers[0].environment["TRITIER_TLS"])
    other = make_lab_certificates(lab.folder / "other2", ["device"])["device"]
    wrong = lab.folder / "wrong.json"
    content = json.loads(made.read_text())
    wrong.write_text(json.dumps(content | {"ca": other.ca}))
    answers = []
    for path in (made, wrong):
        monkeypatch.setenv("TRITIER_TLS", str(path))
        with closing(open_channel(str(lab.addresses["edge"]), [])) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            try:
                answers.append(call(b"", timeout=5))
            except grpc.RpcError as error:
                answers.append(error.code())
    assert answers[0] == b"\x08\x01"  # live: true
    assert answers[1] == grpc.StatusCode.UNAVAILABLE


ADMIN_CALLS: dict[str, Callable[[triton.InferenceServerClient, Any], object]] = {
    "model-repository": lambda c, h: c.get_model_repository_index(headers=h),
    "model-config": lambda c, h: c.get_model_config("espcn", headers=h),
    "logging": lambda c, h: c.get_log_settings(headers=h),
    "trace": lambda c, h: c.get_trace_settings(headers=h),
    "shared-memory": lambda c, h: c.get_system_shared_memory_status(headers=h),
    "statistics": lambda c, h: c.get_inference_statistics(headers=h),
}


@pytest.mark.parametrize("name", RESTRICTED)
def test_administrative_calls_need_the_key(deployed: Protected, name: str) -> None:
    call = ADMIN_CALLS[name]
    with closing(connect(deployed.reached())) as client:
        for headers in (None, {ADMIN_HEADER: "0" * 64}, {"tritier-admin": deployed.key}):
            with pytest.raises(InferenceServerException, match="protocol is restricted"):
                call(client, headers)
        call(client, {ADMIN_HEADER: deployed.key})


@pytest.mark.parametrize(
    ("key", "expected"),
    [(None, "give its key: admin_key_file"), ("f" * 64, "is not that of this server")],
)
def test_a_refused_call_is_told_and_not_tried_again(
    deployed: Protected, key: str | None, expected: str
) -> None:
    file = deployed.folder / "wrong.key"
    file.write_text(str(key))
    access = {"admin_key_file": file if key else None}
    with TritonServer("device", deployed.reached(**access)) as server:
        stub = server._client._client_stub
        sent, load = [], stub.RepositoryModelLoad

        def counted(**call: Any) -> Any:
            sent.append(call)
            return load(**call)

        stub.RepositoryModelLoad = counted
        with pytest.raises(ServerError, match=expected) as caught:
            server.load("espcn")
    assert len(sent) == 1
    assert "server 'device'" in str(caught.value)
    assert str(key) not in str(caught.value)


def test_the_key_is_nowhere_to_be_seen(deployed: Protected) -> None:
    key = deployed.key
    holding = [
        path.relative_to(deployed.folder)
        for path in deployed.folder.rglob("*")
        if path.is_file() and key.encode() in path.read_bytes()
    ]
    # The control: the search finds the one file that holds it.
    assert holding == [Path("lab/admin.key")]
    private = list((deployed.folder / "lab" / "certificates").iterdir())
    assert {path.stat().st_mode & 0o077 for path in [*private, deployed.folder / holding[0]]} == {0}
    for server in deployed.state.servers:
        words = words_of(server.process.pid)
        assert any("@KEY@" in word for word in words)
        stubs = children_of(server.process.pid)
        assert stubs
        for pid in (server.process.pid, *stubs):
            assert key not in " ".join(words_of(pid))
        for pid in stubs:  # models' processes do not inherit it either
            assert key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_http_is_off(lab: Protected) -> None:
    assert [server.http_url for server in lab.state.servers] == [None] * 3
    for server in lab.state.servers:
        assert "--allow-http=false" in words_of(server.process.pid)


def test_commands_work_with_a_servers_file_of_their_own(lab: Protected, tmp_path: Path) -> None:
    """As for servers that somebody else started: another workspace, which knows of no lab."""
    security = lab.state.servers[0].security.model_dump(exclude_none=True)
    rows = [
        {"name": n, "tier": n, "entry": n == "device", "url": str(lab.addresses[n])} for n in NAMES
    ]
    document = {"servers": rows, "security": security}
    (tmp_path / "servers.yaml").write_text(yaml.safe_dump(document))
    without = {k: v for k, v in security.items() if k != "admin_key_file"}
    (tmp_path / "no_key.yaml").write_text(yaml.safe_dump(document | {"security": without}))
    repos = str(lab.repos.path)
    model = str(example_dir("super_resolution") / "espcn_x3.onnx")
    refused = _command(tmp_path, "deploy", repos, "--servers", "no_key.yaml", code=4)
    assert "give its key" in refused.stderr
    done = _command(tmp_path, "deploy", repos, "--servers", "servers.yaml")
    assert "WARNING: server 'device': Triton 2.51.0 lacks security fixes" in done.stderr
    live = ("verify", repos, "--model", model, "--live", "-n", "1", "--servers", "servers.yaml")
    assert "equals the whole model" in _command(tmp_path, *live).stderr
    checked = _command(tmp_path, "servers", "check", "--servers", "servers.yaml")
    assert checked.stderr.count("WARNING") == 3
    _command(tmp_path, "undeploy", repos, "--servers", "servers.yaml")
    texts = [refused, done, checked]
    assert not [x for x in texts if lab.key in x.stderr + x.stdout]


def test_a_lab_where_no_key_can_be_hidden(tmp_path: Path) -> None:
    rows = [{"name": "one", "tier": "edge", "entry": True}]
    (tmp_path / "servers.yaml").write_text(yaml.safe_dump({"servers": rows}))
    (tmp_path / "k").write_text("f" * 64)
    wanted = {"servers": rows, "security": {"admin_key_file": "k"}}
    (tmp_path / "key.yaml").write_text(yaml.safe_dump(wanted))
    up = ("lab", "up", "--servers")
    refused = _command(tmp_path, *up, "key.yaml", code=4, before=NO_PTRACE)
    assert "take admin_key_file and admin_key_variable out" in refused.stderr
    try:
        done = _command(tmp_path, *up, "servers.yaml", before=NO_PTRACE)
        assert "WARNING: the lab runs WITHOUT a key" in done.stderr
    finally:
        Lab(tmp_path / ".tritier" / "lab").down()


def _command(
    folder: Path, *words: str, code: int = 0, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*before, sys.executable, "-m", "tritier", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def test_an_unprotected_server_takes_administrative_calls_of_everybody(bench: Bench) -> None:
    """The control of this file: without protection the same calls succeed."""
    with closing(triton.InferenceServerClient(bench.state.urls["device"])) as client:
        client.get_model_repository_index()
        client.get_log_settings()
    with TritonServer("device", Address(bench.state.urls["device"], Access())) as server:
        assert server.version() == "2.51.0"
