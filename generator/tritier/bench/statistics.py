"""What servers count of their models: before a load, after it, and what came in between."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from tritier.deployment.client import TritonServer
from tritier.documents import ModelShare
from tritier.errors import ServerError

_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Counted:
    """Of one model since it was loaded: counts, (count, ns) of each part of a request, and ns of
    executions, which are counted once for all requests in them."""

    requests: int
    failures: int
    executions: int
    from_cache: int
    parts: Mapping[str, tuple[int, int]]
    executing_ns: int = 0


# Model -> what was counted.
Counts = Mapping[str, Counted]


def read_counts(server: TritonServer) -> Counts:
    """What a server has counted, all versions of a model together; raises ServerError."""
    found: dict[str, Counted] = {}
    for item in server.all_statistics():
        stats = item.inference_stats
        new = Counted(
            requests=stats.success.count,
            failures=stats.fail.count,
            executions=item.execution_count,
            from_cache=stats.cache_hit.count,
            parts={name: (getattr(stats, name).count, getattr(stats, name).ns) for name in _PARTS},
            executing_ns=sum(size.compute_infer.ns for size in item.batch_stats),
        )
        found[item.name] = _add(found[item.name], new, 1) if item.name in found else new
    return found


def shares(before: Counts, after: Counts) -> tuple[ModelShare, ...]:
    """What each model did in between, by name; those that did nothing are left out.

    A model that was loaded anew in between counts from zero again: all that it has counted is new.
    """
    found = []
    for name in sorted(after):
        old, new = before.get(name), after[name]
        did = new if old is None or _counts_anew(old, new) else _add(new, old, -1)
        if did.requests or did.failures:
            found.append(_share(name, did))
    return tuple(found)


def _counts_anew(old: Counted, new: Counted) -> bool:
    """Whether any count is lower: of requests alone there may be more by now."""
    pairs = [
        (old.requests, new.requests),
        (old.failures, new.failures),
        (old.executions, new.executions),
        (old.from_cache, new.from_cache),
        *((old.parts[name][k], new.parts[name][k]) for name in new.parts for k in (0, 1)),
    ]
    return any(after < before for before, after in pairs)


def cached(before: Counts, after: Counts) -> list[str]:
    """Models that answered from a response cache in between."""
    found = []
    for name, new in after.items():
        old = before.get(name)
        known = 0 if old is None or _counts_anew(old, new) else old.from_cache
        if new.from_cache > known:
            found.append(name)
    return sorted(found)


class Scraper:
    """The servers of a plan, asked for what they counted. Close it, or use it in a `with` block."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._servers = [TritonServer(name, url) for name, url in urls.items()]

    def __enter__(self) -> Scraper:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            with suppress(Exception):
                server.close()

    def read(self) -> dict[str, Counts]:
        """Server -> what it counted; raises ServerError if one can't be asked."""
        return {server.name: read_counts(server) for server in self._servers}

    def versions(self) -> tuple[dict[str, str], dict[str, str]]:
        """(server -> version of its Triton, server -> why it can't be asked)."""
        versions, failures = {}, {}
        for server in self._servers:
            try:
                versions[server.name] = server.version()
                read_counts(server)
            except ServerError as error:
                versions.pop(server.name, None)
                failures[server.name] = str(error)
        return versions, failures


def _add(one: Counted, other: Counted, sign: int) -> Counted:
    return Counted(
        requests=one.requests + sign * other.requests,
        failures=one.failures + sign * other.failures,
        executions=one.executions + sign * other.executions,
        from_cache=one.from_cache + sign * other.from_cache,
        parts={
            name: (count + sign * other.parts[name][0], ns + sign * other.parts[name][1])
            for name, (count, ns) in one.parts.items()
        },
        executing_ns=one.executing_ns + sign * other.executing_ns,
    )


def _share(name: str, did: Counted) -> ModelShare:
    def per_request_ms(part: str) -> float:
        count, ns = did.parts[part]
        return ns / count / 1e6 if count > 0 else 0.0

    return ModelShare(
        model=name,
        requests=did.requests,
        executions=did.executions,
        failures=did.failures,
        queue_ms=per_request_ms("queue"),
        compute_input_ms=per_request_ms("compute_input"),
        compute_infer_ms=per_request_ms("compute_infer"),
        compute_output_ms=per_request_ms("compute_output"),
        executing_ms=did.executing_ns / 1e6 if did.executing_ns > 0 else None,
    )
