"""What the router is told by the parameters of its config.pbtxt: plans, classes, limits."""

import json
from dataclasses import dataclass, field

# Triton carries BLS calls and answers of a model with one pool of 32 threads. Calls that never
# return (a killed stub) keep theirs, so that some must be left for the answers.
DEFAULT_BLS_CALLS = 24
_SHARE_STEP = 0.1
_SMALLEST_SHARE = 0.5


@dataclass(frozen=True)
class Plan:
    """One way to compute the model; `model` is what is called, `servers` what it needs."""

    id: str
    model: str
    servers: tuple


@dataclass(frozen=True)
class RequestClass:
    """Requests that want the same. `plans` are ids in order of preference.

    `most_in_flight`: the class is refused when so many requests, of all classes, are in flight.
    """

    name: str
    plans: tuple
    deadline_s: float
    hedge: bool
    most_in_flight: int


@dataclass(frozen=True)
class Table:
    """All that is configured."""

    family_id: str
    plans: dict
    classes: dict
    default_class: str
    deadline_s: float
    entry: str
    urls: dict
    probe_interval_s: float = 1.0
    eject_after: int = 3
    max_in_flight: int = 64
    retry_share: float = 0.2
    bls_calls: int = DEFAULT_BLS_CALLS
    probe_dims: dict = field(default_factory=dict)


def read_table(parameters):
    """The table of {name: text}; ValueError that names the parameter and what is allowed."""
    deadline_ms = _number(parameters, "deadline_ms", 10_000, 1, 86_400_000)
    max_in_flight = _number(parameters, "max_in_flight", 64, 1, 100_000)
    plans = _plans(_object(parameters, "plans", required=True))
    classes = _classes(
        _object(parameters, "classes", required=True), plans, deadline_ms, max_in_flight
    )
    default = parameters.get("default_class") or next(iter(classes))
    if default not in classes:
        raise ValueError(f"default_class: '{default}' is no class; known are {', '.join(classes)}")
    if not parameters.get("entry"):
        raise ValueError("entry: the name of the server of the router is missing")
    return Table(
        family_id=parameters.get("family_id", ""),
        plans=plans,
        classes=classes,
        default_class=default,
        deadline_s=deadline_ms / 1000,
        entry=parameters["entry"],
        urls={k: v for k, v in _object(parameters, "urls").items() if v},
        probe_interval_s=_number(parameters, "probe_interval_ms", 1000, 10, 3_600_000) / 1000,
        eject_after=_number(parameters, "eject_after", 3, 1, 1000),
        max_in_flight=max_in_flight,
        retry_share=_number(parameters, "retry_share", 0.2, 0, 1, float),
        bls_calls=_number(parameters, "bls_calls", DEFAULT_BLS_CALLS, 0, 1000),
        probe_dims=_object(parameters, "probe_dims"),
    )


def _plans(found):
    plans = {}
    for name, row in found.items():
        servers = row.get("servers") if isinstance(row, dict) else None
        model = row.get("model") if isinstance(row, dict) else None
        good = isinstance(servers, list) and servers and all(isinstance(s, str) for s in servers)
        if not (good and isinstance(model, str) and model):
            raise ValueError(
                f'plans: plan \'{name}\': allowed is {{"model": name, "servers": [names]}}'
            )
        plans[name] = Plan(name, model, tuple(servers))
    if not plans:
        raise ValueError("plans: there must be at least one")
    return plans


def _classes(found, plans, longest_ms, max_in_flight):
    """Classes stand in the order of their importance: under load the last are refused first."""
    classes = {}
    for index, (name, row) in enumerate(found.items()):
        wanted = row.get("plans") if isinstance(row, dict) else None
        if not isinstance(wanted, list) or not wanted:
            raise ValueError(f"classes: class '{name}' needs a list of plans")
        unknown = [plan for plan in wanted if plan not in plans]
        if unknown:
            raise ValueError(
                f"classes: class '{name}' names plans {unknown}; known are {', '.join(plans)}"
            )
        deadline_ms = row.get("deadline_ms", longest_ms)
        if isinstance(deadline_ms, bool) or not isinstance(deadline_ms, int) or deadline_ms < 1:
            raise ValueError(
                f"classes: class '{name}': deadline_ms is {deadline_ms!r}; allowed are integers "
                "from 1"
            )
        share = max(_SMALLEST_SHARE, 1 - _SHARE_STEP * index)
        classes[name] = RequestClass(
            name=name,
            plans=tuple(dict.fromkeys(wanted)),
            deadline_s=min(deadline_ms, longest_ms) / 1000,
            hedge=row.get("hedge") is True,
            most_in_flight=max(1, int(max_in_flight * share)),
        )
    if not classes:
        raise ValueError("classes: there must be at least one")
    return classes


def _object(parameters, name, required=False):
    text = parameters.get(name) or ("" if required else "{}")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}: allowed is a JSON object, not {text[:60]}")
    return found


def _number(parameters, name, default, smallest, largest, kind=int):
    text = parameters.get(name) or str(default)
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not smallest <= value <= largest:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{name} is '{text}'; allowed are {what} from {smallest} to {largest}")
    return value
