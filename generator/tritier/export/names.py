"""Names of servers as DNS labels, which names of services and hosts must be."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tritier.errors import InputError

# A label has at most 63 characters; the others are for what engines append.
MAX_LABEL = 40
_PREFIX = "tier-"


def dns_label(name: str) -> str:
    """A server's name as a label by RFC 1035: a-z, 0-9 and -, a letter first, no - at the end, at
    most `MAX_LABEL` characters."""
    kept = "".join(x if x.isascii() and x.isalnum() else "-" for x in name.lower()).strip("-")
    if not kept[:1].isalpha():
        kept = _PREFIX + kept
    return kept[:MAX_LABEL].rstrip("-")


def dns_labels(names: Iterable[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Name -> label, all different and none of `reserved`; InputError names those that are not."""
    found: dict[str, str] = {}
    faults = []
    for name in names:
        label = dns_label(name)
        if label in reserved:
            faults.append(
                f"server '{name}' would be the service '{label}', which is exported beside it: "
                "give the server another name"
            )
        faults += [
            f"servers '{other}' and '{name}' would both be the service '{label}' (a-z, 0-9 and -, "
            f"{MAX_LABEL} characters): give one of them another name"
            for other, taken in found.items()
            if taken == label
        ]
        found[name] = label
    if faults:
        raise InputError(faults)
    return found
