"""Which server a bench calls, and which ones it asks for their statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritier.cli.common import Workspace
from tritier.deployment.access import lab_addresses, spec_address
from tritier.documents import ServersSpec
from tritier.errors import InputError, UsageError


@dataclass(frozen=True)
class Place:
    """Address of the entry, those of all servers, and what is to be said of them."""

    url: str
    urls: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def find_entry(url: str | None, spec: ServersSpec | None, workspace: Workspace) -> Place:
    """From --url, --servers and a running lab; raises UsageError or InputError if that is too
    little."""
    lab = lab_addresses(workspace.running_lab())
    if spec is None:
        if url is None:
            raise UsageError(
                "say what to call: --servers FILE (its entry, also in a lab) or --url HOST:PORT"
            )
        return _of_url(url, lab)
    known: dict[str, str] = {}
    for name in spec.names:
        address = lab.get(name) or spec_address(spec, name)
        if address is not None:
            known[name] = address
    entry = next((item for item in known.values() if item == url), None) or url
    entry = entry or known.get(spec.entry.name)
    if entry is None:
        raise InputError(
            f"server '{spec.entry.name}', the entry, has no address: give it a url in the servers "
            "file, start the lab with `tritier lab up`, or pass --url"
        )
    missing = [name for name in spec.names if name not in known]
    warnings = [f"server '{name}' has no address: its steps are not seen" for name in missing]
    if entry not in known.values():
        known = {"entry": entry, **known}
    return Place(entry, known, tuple(warnings))


def _of_url(url: str, lab: Mapping[str, str]) -> Place:
    own = next((address for address in lab.values() if address == url), None)
    if own is not None:
        return Place(own, dict(lab))
    return Place(
        url,
        {"entry": url},
        ("steps on other servers than this one are not seen: name them with --servers",),
    )
