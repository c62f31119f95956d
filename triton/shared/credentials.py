"""Channels to other servers, with TLS where the environment variable TRITIER_TLS says so.

It is the path of a JSON file {"ca": path, "cert": path, "key": path, "server_name": text}: `ca`
holds the certificates by which servers are known, `cert` and `key` (together, or neither) are what
this server shows to those that ask for certificates of clients, `server_name` is the name in the
others' certificates where that is not the one in their address. Paths are relative to the file.

Files are read whenever a channel is opened: new certificates are used by models loaded afterwards.
"""

import json
import os

import grpc

VARIABLE = "TRITIER_TLS"
_KEYS = ("ca", "cert", "key", "server_name")


def open_channel(url, options):
    """A channel to `url` (host:port); ValueError, which names the file, for bad credentials."""
    path = os.environ.get(VARIABLE, "").strip()
    if not path:
        return grpc.insecure_channel(url, options=options)
    found = _read(path)
    folder = os.path.dirname(os.path.abspath(path))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(folder, found, "ca"),
        private_key=_pem(folder, found, "key"),
        certificate_chain=_pem(folder, found, "cert"),
    )
    if "server_name" in found:
        options = [*options, ("grpc.ssl_target_name_override", found["server_name"])]
    return grpc.secure_channel(url, credentials, options=options)


def _read(path):
    where = f"{VARIABLE} ({path})"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise ValueError(f"{where}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(x, str) for x in found.values()):
        raise ValueError(f"{where}: allowed is a JSON object of texts with {', '.join(_KEYS)}")
    unknown = [name for name in found if name not in _KEYS]
    if unknown:
        raise ValueError(f"{where}: unknown {unknown}; allowed are {', '.join(_KEYS)}")
    if "ca" not in found:
        raise ValueError(f"{where}: `ca` is missing, the certificates by which servers are known")
    if ("cert" in found) != ("key" in found):
        raise ValueError(f"{where}: `cert` and `key` belong together; give both or neither")
    return found


def _pem(folder, found, name):
    if name not in found:
        return None
    path = os.path.join(folder, found[name])
    where = f"{VARIABLE}, `{name}` ({path})"
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"{where}: can't be read: {error.strerror}") from None
    if b"-----BEGIN" not in data:
        raise ValueError(f"{where}: is no PEM file")
    return data
