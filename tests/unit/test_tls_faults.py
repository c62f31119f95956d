"""What a client with TLS is told: real handshakes with a small gRPC server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from tritier.deployment import certificates, client
from tritier.deployment.access import Access, Address, address, connect, explained, is_of_protection
from tritier.deployment.client import TritonServer
from tritier.documents import Security
from tritier.errors import ServerError


@dataclasses.dataclass(frozen=True)
class Made:
    """Certificates of a lab, of another one, and of one whose time is over."""

    good: Security
    other: Security
    expired: Security
    damaged: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("tls")

    def make(name: str) -> Security:
        return certificates.make_lab_certificates(folder / name, ["device"])["device"]

    damaged = folder / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_DAYS", -1 / 1440)
        expired = make("expired")
    return Made(make("good"), make("other"), expired, damaged)


@contextmanager
def server(security: Security) -> Iterator[int]:
    """The port of a server that asks for certificates of clients and knows no call."""
    names = (security.server_key, security.server_cert, security.ca)
    key, cert, ca = (Path(str(name)).read_bytes() for name in names)
    running = grpc.server(futures.ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
    port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    try:
        yield port
    finally:
        running.stop(None).wait()


@pytest.fixture(scope="module")
def port(made: Made) -> Iterator[int]:
    with server(made.good) as found:
        yield found


def answer(port: int, access: Access) -> tuple[str, bool]:
    """What the call ends with, and whether that is for a reason of protection."""
    url = Address(f"127.0.0.1:{port}", access)
    with closing(connect(url)) as asking, pytest.raises(InferenceServerException) as caught:
        asking.is_server_live(client_timeout=10)
    return explained(caught.value, url), is_of_protection(caught.value, url)


def access_with(security: Security) -> Access:
    return address("device", "127.0.0.1:1", Security(tls=True).over(security)).access


def client_of(security: Security) -> dict[str, Path]:
    return {
        "client_cert": Path(str(security.client_cert)),
        "client_key": Path(str(security.client_key)),
    }


def test_the_control_gets_through(made: Made, port: int) -> None:
    assert answer(port, access_with(made.good)) == (
        "StatusCode.UNIMPLEMENTED Method not found!",
        False,
    )


CASES: dict[str, tuple[Callable[[Made], dict[str, Path | str]], str]] = {
    "wrong ca": (lambda m: {"ca": Path(str(m.other.ca))}, "is not signed by"),
    "wrong name": (lambda _: {"server_name": "edge"}, "has another name: set server_name"),
    "damaged ca": (lambda m: {"ca": m.damaged}, "a file is damaged"),
    "damaged certificate": (lambda m: {"client_cert": m.damaged}, "a file is damaged"),
    "another's key": (
        lambda m: {"client_key": Path(str(m.other.client_key))},
        "client_key is not that of client_cert",
    ),
    "another's certificate": (lambda m: {**client_of(m.other)}, "may not accept the client's"),
    "expired certificate": (lambda m: {**client_of(m.expired)}, "a date that holds"),
}


@pytest.mark.parametrize("case", CASES)
def test_faults_are_told(made: Made, port: int, case: str) -> None:
    changes, expected = CASES[case]
    text, of_protection = answer(
        port,
        dataclasses.replace(access_with(made.good), **changes(made)),  # type: ignore[arg-type]
    )
    assert expected in text
    assert of_protection


def test_an_expired_server_is_refused_and_not_called_forged(made: Made) -> None:
    with server(made.expired) as port:
        text, of_protection = answer(port, access_with(made.expired))
    assert "has expired: renew it" in text
    assert "not signed by" not in text
    assert of_protection


def test_a_connection_that_closes_for_a_moment_is_waited_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a port changes hands; one that stays closed is told long before the time is over."""
    closed = InferenceServerException("Socket closed", status="StatusCode.UNAVAILABLE")
    answers: list[bool] = []

    def live(**_: float) -> bool:
        answers.append(len(answers) >= 2 and opens)
        if not answers[-1]:
            raise closed
        return True

    with TritonServer("device", "127.0.0.1:1") as waiting:
        monkeypatch.setattr(waiting._client, "is_server_live", live)
        monkeypatch.setattr(
            waiting._client, "get_server_metadata", lambda **_: SimpleNamespace(name="device")
        )
        opens = True
        waiting.wait_until_live(30)
        assert answers == [False, False, True]
        opens = False
        monkeypatch.setattr(client, "_REFUSED_S", 0.2)
        with pytest.raises(ServerError, match=r"'device' .* if this server uses TLS"):
            waiting.wait_until_live(30)
