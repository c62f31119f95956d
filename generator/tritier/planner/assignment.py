"""Turn an assignment, with its patterns, into one server per layer."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

from tritier.documents import Assignment
from tritier.errors import InputError, did_you_mean

_PATTERN_CHARACTERS = "*?["


def resolve_assignment(
    assignment: Assignment,
    layers: Iterable[str],
    servers: Iterable[str],
    constants: Iterable[str] = (),
) -> dict[str, str]:
    """Server of every layer, in the order of `layers`.

    A name or pattern may match only `constants` (nodes that are copied wherever they are used and
    are never placed): that is allowed and has no effect. Raises InputError with every unknown
    server, every unknown name, every pattern without a match and every layer left over.
    """
    layer_names = list(layers)
    server_names = list(servers)
    faults = _server_faults(assignment, server_names)
    exact, patterns, unmatched = _split(assignment.layers, layer_names, set(constants))
    faults += unmatched
    placed: dict[str, str] = {}
    for layer in layer_names:
        server = exact.get(layer) or _first_match(layer, patterns) or assignment.default
        if server is not None:
            placed[layer] = server
    missing = [layer for layer in layer_names if layer not in placed]
    if missing:
        shown = ", ".join(f"'{layer}'" for layer in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        faults.append(f"no server for {shown}{more}: name them or give a `default` server")
    if faults:
        raise InputError(faults)
    return placed


def _server_faults(assignment: Assignment, servers: list[str]) -> list[str]:
    stated = [(f"layers['{name}']", server) for name, server in assignment.layers.items()]
    if assignment.default is not None:
        stated.append(("default", assignment.default))
    return [
        f"{where}: unknown server '{server}'{did_you_mean(server, servers)}; known are "
        f"{', '.join(servers)}"
        for where, server in stated
        if server not in servers
    ]


def _split(
    rules: Mapping[str, str], layers: list[str], constants: set[str]
) -> tuple[dict[str, str], list[tuple[str, str]], list[str]]:
    """(exact names, patterns in order, faults). A layer may have * or [ in its very name."""
    known = set(layers)
    exact, patterns, faults = {}, [], []
    for key, server in rules.items():
        if key in known or key in constants:
            exact[key] = server
        elif not any(character in key for character in _PATTERN_CHARACTERS):
            faults.append(
                f"layers: unknown layer '{key}'{did_you_mean(key, layers)}; the model has "
                f"{len(layers)} layers, from '{layers[0]}' to '{layers[-1]}'"
            )
        elif not any(fnmatch.fnmatchcase(name, key) for name in (*layers, *constants)):
            faults.append(f"layers: the pattern '{key}' matches no layer")
        else:
            patterns.append((key, server))
    return exact, patterns, faults


def _first_match(layer: str, patterns: list[tuple[str, str]]) -> str | None:
    return next((s for pattern, s in patterns if fnmatch.fnmatchcase(layer, pattern)), None)
