"""Which Triton a server runs, and whether it lacks fixes of security faults that are public."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from tritier.deployment.access import access_of, is_loopback
from tritier.deployment.client import TritonServer

Version = tuple[int, int, int]
# Release of the container -> version of the server. From the release notes of Triton (table
# "Triton Inference Server Container Versions"); 26.06 from pull request 8844 of
# triton-inference-server/server.
RELEASES: Mapping[str, Version] = {
    "23.10": (2, 39, 0),
    "24.06": (2, 47, 0),
    "24.10": (2, 51, 0),
    "25.06": (2, 59, 0),
    "26.05": (2, 69, 0),
    "26.06": (2, 70, 0),
}
# Older ones lack fixes of security faults that are public.
SECURITY_RELEASE = "26.06"


def version_of(text: str) -> Version | None:
    """(major, minor, patch) of a Triton version; None if it has no such form."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def dotted(version: Version) -> str:
    """As Triton writes it."""
    return ".".join(str(part) for part in version)


def insecurity(version: str) -> str | None:
    """What to say against a server of this version; None if it is new enough."""
    found, floor = version_of(version), RELEASES[SECURITY_RELEASE]
    if found is None:
        return f"Triton's version '{version}' is of no known form and was not compared"
    if found < floor:
        return (
            f"Triton {version} lacks security fixes of 2025 and 2026: use {dotted(floor)} "
            f"({SECURITY_RELEASE}) or newer in production"
        )
    return None


def warnings_of(versions: Mapping[str, str], lab: Collection[str]) -> list[str]:
    """A warning per insecure server (name -> version), one for all those of a lab together."""
    found = {name: insecurity(version) for name, version in versions.items()}
    texts = [f"server '{n}': {text}" for n, text in found.items() if text and n not in lab]
    if any(found.get(name) for name in lab):
        texts.append(
            "the Triton of the lab lacks security fixes: it is for loopback and tests, see "
            "docs/security.md"
        )
    return texts


def readable_warnings(urls: Mapping[str, str]) -> list[str]:
    """What will cross a network readable when these servers (name -> address) are called."""
    texts = []
    for name, url in urls.items():
        if access_of(url).ca is None and not is_loopback(url):
            what = "tensors and the admin key" if access_of(url).restricted else "tensors"
            texts.append(
                f"server '{name}' at {url} is called without TLS: {what} cross the network "
                "readable; see docs/security.md"
            )
    return texts


def version_warnings(urls: Mapping[str, str], lab: Collection[str]) -> list[str]:
    """Which of these servers are old. Raises ServerError for one that is not there."""
    versions = {}
    for name, url in urls.items():
        with TritonServer(name, url) as server:
            versions[name] = server.version()
    return warnings_of(versions, lab)
