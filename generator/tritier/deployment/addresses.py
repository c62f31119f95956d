"""Where the servers of a plan are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tritier.deployment.access import lab_addresses, spec_address
from tritier.documents import LabState, ServersSpec
from tritier.errors import InputError
from tritier.repository import Repositories

Push = Literal["auto", "always", "never"]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Addresses:
    """Where the servers of a plan are, and others of the servers file as far as they are known.

    `urls` are for deployment and apps. `peers_known` are servers whose environment names the
    addresses of their peers (those of the lab): their configs need none.
    """

    urls: Mapping[str, str]
    peers_known: frozenset[str]


def find_addresses(
    repositories: Repositories, spec: ServersSpec, lab: LabState | None
) -> Addresses:
    """Addresses from the servers file and, for those without a url there, from the lab.

    Raises InputError for a server of the plan that neither knows.
    """
    lab_urls = lab_addresses(lab)
    known = {name: lab_urls.get(name) or spec_address(spec, name) for name in spec.names}
    faults = []
    for name in repositories.servers():
        if name not in spec.names:
            names = ", ".join(spec.names)
            faults.append(f"the plan uses server '{name}'; the servers file has {names}")
        elif known[name] is None:
            faults.append(
                f"server '{name}' has no address: give it a url in the servers file or start the "
                "lab with `tritier lab up`"
            )
    if faults:
        raise InputError(faults)
    urls = {name: url for name, url in known.items() if url is not None}
    return Addresses(urls, frozenset(lab_urls))
