"""Certificates of a lab: an authority that is made by each `tritier lab up`, and what it signs.

The authority's private key is never written; its certificates are good for this machine alone.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tritier.documents import Security
from tritier.errors import ServerError
from tritier.files import write_file

if TYPE_CHECKING:  # only a lab needs the package
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

# Stands in the file of the authority, before the certificate: see `access.address`.
LAB_MARK = "# of a Tritier lab: for this machine alone, never for production"
_DAYS = 30
_PRIVATE = 0o600


@dataclass(frozen=True)
class _Signer:
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


def make_lab_certificates(folder: Path, servers: Iterable[str]) -> dict[str, Security]:
    """Certificates for servers on 127.0.0.1 and for their clients, in files that only this user
    can read; returns the paths by server. `tls` and `mutual` are left open.

    Raises ServerError if the package `cryptography` is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ServerError(
            "certificates are made with the package cryptography: pip install 'tritier[embedded]'"
        ) from None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # one that was there
    signer = _authority()
    ca = folder / "ca.pem"
    write_file(ca, f"{LAB_MARK}\n{_pem(signer.certificate)}", mode=_PRIVATE)
    client_cert, client_key = _write(folder, "client", _signed(signer, "tritier lab client", False))
    found = {}
    for server in servers:
        cert, key = _write(folder, f"server_{server}", _signed(signer, server, True))
        found[server] = Security(
            ca=str(ca),
            server_cert=str(cert),
            server_key=str(key),
            client_cert=str(client_cert),
            client_key=str(client_key),
        )
    return found


def _authority() -> _Signer:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # Of another name than that of any other lab: else a wrong one looks like a forged one.
    name = _name(f"tritier lab authority {secrets.token_hex(4)}")
    builder = _builder(name, name, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(own, critical=False)
    return _Signer(builder.sign(key, hashes.SHA256()), key)


def _signed(signer: _Signer, name: str, server: bool) -> tuple[str, str]:
    """PEM texts of a certificate and its private key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), signer.certificate.subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage(sign=False), critical=True)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    builder = builder.add_extension(issuer, critical=False)  # strict clients ask for it
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if server:
        names = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return _pem(builder.sign(signer.key, hashes.SHA256())), private.decode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
    )


def _usage(sign: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _write(folder: Path, name: str, texts: tuple[str, str]) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    write_file(cert, texts[0], mode=_PRIVATE)
    write_file(key, texts[1], mode=_PRIVATE)
    return cert, key
