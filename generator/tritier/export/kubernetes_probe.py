"""Asks the Triton of this container over TLS whether it is ready: status 0 if it is.

Probes of Kubernetes by gRPC speak no TLS with certificates of clients, so pods with TLS run this
instead. It speaks the health protocol of gRPC, with the credentials of the file that TRITIER_TLS
names, and needs grpcio, which the proxies need too. One argument: the name in the certificate,
where that file has none. In the project it is a file to copy, never imported.

    python3 kubernetes_probe.py edge
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import grpc

_ADDRESS = "127.0.0.1:8001"
_TIMEOUT_S = 5
# `HealthCheckResponse { status: SERVING }`; an empty request asks for the server as a whole.
_SERVING = b"\x08\x01"


def main(name: str) -> int:
    """0 if Triton says that it serves, else 1 with a line on stderr."""
    file = Path(os.environ["TRITIER_TLS"])
    found = json.loads(file.read_text(encoding="utf-8"))
    pem = {k: (file.parent / found[k]).read_bytes() for k in ("ca", "cert", "key") if k in found}
    credentials = grpc.ssl_channel_credentials(pem["ca"], pem.get("key"), pem.get("cert"))
    name = found.get("server_name", name)
    options = [("grpc.ssl_target_name_override", name)]
    with grpc.secure_channel(_ADDRESS, credentials, options=options) as channel:
        try:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            sys.stderr.write(f"{error.code().name}: {error.details()}\n")
            return 1
    if answer != _SERVING:
        sys.stderr.write("Triton is not ready\n")
    return int(answer != _SERVING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
