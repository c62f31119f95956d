"""Ends with 0 if the Triton beside it is ready, or live with --live: a container's health check.

It asks over gRPC, since HTTP is off. With TLS it shows the certificate that the server's own calls
show: the environment variable TRITIER_TLS names the file that says where it lies. It needs
grpcio and nothing of Triton, so that it is quick.
"""

import argparse
import json
import os
import sys

import grpc

_SERVICE = "/inference.GRPCInferenceService"


def main(arguments):
    """Exit status 0 for yes; else 1, with the reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="127.0.0.1:8001", help="host:port of gRPC")
    parser.add_argument("--live", action="store_true", help="whether it answers at all")
    parser.add_argument("--server-name", help="the name in its certificate")
    parser.add_argument("--timeout-s", type=float, default=5.0)
    options = parser.parse_args(arguments)
    method = "ServerLive" if options.live else "ServerReady"
    try:
        with _channel(options) as channel:
            call = channel.unary_unary(f"{_SERVICE}/{method}")
            answer = call(b"", timeout=options.timeout_s)
    except grpc.RpcError as error:
        return f"{method} at {options.address}: {error.code().name}: {error.details()}"
    except (OSError, ValueError, KeyError) as error:
        return f"{method} at {options.address}: {type(error).__name__}: {error}"
    # A message whose only field, a bool with number 1, is true.
    return 0 if answer == b"\x08\x01" else f"{method} at {options.address}: not yet"


def _channel(options):
    path = os.environ.get("TRITIER_TLS", "").strip()
    if not path:
        return grpc.insecure_channel(options.address)
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    pems = {name: _read(path, found.get(name)) for name in ("ca", "cert", "key")}
    credentials = grpc.ssl_channel_credentials(pems["ca"], pems["key"], pems["cert"])
    names = [("grpc.ssl_target_name_override", options.server_name)] if options.server_name else []
    return grpc.secure_channel(options.address, credentials, options=names)


def _read(beside, name):
    if name is None:
        return None
    with open(os.path.join(os.path.dirname(os.path.abspath(beside)), name), "rb") as file:
        return file.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
