"""Changing the emulated links of a running lab: slower, stalled, cut, and as they were."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tritier.deployment.process import is_running
from tritier.deployment.relay import applied_file, changes_file, load_config
from tritier.deployment.relay_config import LinkSpec, RelayConfigError, load_changes
from tritier.documents import LabProcess, LabState
from tritier.errors import InputError, ServerError
from tritier.files import sha256_bytes, write_file

_ANSWER_TIMEOUT_S = 10.0
_POLL_S = 0.01


def set_link(lab: LabState, source: str, target: str, **changes: Any) -> None:
    """Change the link from `source` to `target`; returns when the relay has changed it.

    `changes` are `bandwidth_mib_s` (None: unlimited) and `latency_ms` of this direction, and
    `state`: "open", "black_hole" (bytes stop, connections stay) or "cut" (connections are reset),
    which holds for both directions, as no connection works without its way back. What is not
    given stays as it is.

    Raises InputError for a link that the lab does not emulate or a bad value, ServerError if the
    relay does not run or does not answer.
    """
    config, relay = _config_of(lab)
    now = {link.name: link for link in _links_now(config, relay)}
    name, back = f"{source}->{target}", f"{target}->{source}"
    if name not in now:
        known = ", ".join(now)
        raise InputError(
            f"the lab emulates no link {name}; it emulates {known}: give the link in the servers "
            "file (a latency of 0 will do) and start the lab again"
        )
    try:
        now[name] = replace(now[name], **changes)
        if "state" in changes:
            now[back] = replace(now[back], state=changes["state"])
    except RelayConfigError as error:
        raise InputError(str(error)) from None
    _tell(config, relay, now)


def restore_link(lab: LabState, source: str, target: str) -> None:
    """Make a link, in both directions, what it was when the lab was started; see `set_link`."""
    config, _ = _config_of(lab)
    for link in load_config(config).links:
        if link.name in (f"{source}->{target}", f"{target}->{source}"):
            first, _, second = link.name.partition("->")
            values = asdict(link)
            set_link(lab, first, second, **{key: values[key] for key in values if key != "name"})


def links_now(lab: LabState) -> tuple[LinkSpec, ...]:
    """All emulated links as they are now; empty for a lab without emulated links."""
    return _links_now(*_config_of(lab)) if lab.relay is not None else ()


def _config_of(lab: LabState) -> tuple[Path, LabProcess]:
    if lab.relay is None or lab.relay_log_file is None:
        raise InputError(
            "the lab emulates no links: give links in the servers file and start it again"
        )
    if not is_running(lab.relay.pid, lab.relay.started_ticks):
        raise ServerError("the relay of the lab has ended: `tritier lab down`, then up again")
    return Path(lab.relay_log_file).parent.parent / "relay.json", lab.relay


def _links_now(config: Path, relay: LabProcess) -> tuple[LinkSpec, ...]:
    """A file of changes that another relay left here, before this one was started, is none."""
    whole = load_config(config)
    try:
        data = changes_file(config).read_bytes()
    except FileNotFoundError:
        return whole.links
    told = json.loads(data)
    if told.pop("relay", None) != _mark(relay):
        return whole.links
    return load_changes(json.dumps(told).encode(), whole)


def _mark(relay: LabProcess) -> list[int]:
    return [relay.pid, relay.started_ticks]


def _tell(config: Path, relay: LabProcess, links: Mapping[str, LinkSpec]) -> None:
    document = {"relay": _mark(relay), "links": [asdict(link) for link in links.values()]}
    data = json.dumps(document, indent=2).encode()
    digest = sha256_bytes(data)
    applied_file(config).unlink(missing_ok=True)
    write_file(changes_file(config), data)
    os.kill(relay.pid, signal.SIGHUP)
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while (answer := _answer(config)).get("sha256") != digest:
        if time.monotonic() > deadline:
            raise ServerError(
                f"the relay of the lab did not answer in {_ANSWER_TIMEOUT_S:.0f} s: "
                "`tritier lab down`, then up again"
            )
        time.sleep(_POLL_S)
    if answer["error"]:
        raise ServerError(f"the relay of the lab refused: {answer['error']}")


def _answer(config: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(applied_file(config).read_bytes())
    except FileNotFoundError:
        return {}
    return answer
