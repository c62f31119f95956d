"""What is known of servers after a check, and what a check objects to."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tritier.deployment.versions import RELEASES, SECURITY_RELEASE, version_of
from tritier.documents import (
    Figure,
    HostFacts,
    LabState,
    NetworkState,
    PowerFacts,
    Server,
    ServersSpec,
    TritonFacts,
)
from tritier.errors import InputError
from tritier.network.contact import AgentAnswer, Contact, clock_offset
from tritier.network.registry import Merged, configured_power, merge, server_urls
from tritier.network.requirements import (
    EXTENSIONS,
    FEATURES,
    find_problems,
)

FIRST, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
NEWEST = TritonFacts(name="t", version="2.70.0", extensions=tuple(x.name for x in EXTENSIONS))


def spec(names: str, **first: object) -> ServersSpec:
    """Servers with one letter each; the first, the entry, has more keys."""
    rows: list[dict[str, object]] = [{"name": n, "tier": "edge", "url": f"{n}:1"} for n in names]
    rows[0] |= {"entry": True, **first}
    return ServersSpec.from_data({"servers": rows})


def host(name: str = "h1", **more: Any) -> HostFacts:
    facts: dict[str, Any] = {
        "host": name,
        "cores": 4,
        "cpu_model": "x",
        "cpu_flags": (),
        "memory_total_bytes": 2**30,
        "memory_available_bytes": 2**29,
        "python": "3.11.2",
        "onnxruntime": "1.20.0",
        "providers": ("CPUExecutionProvider",),
    }
    return HostFacts(**{**facts, **more})


def agent(
    facts: HostFacts | None = None, offset_ms: float = 0, watt: float | None = None
) -> AgentAnswer:
    power = () if watt is None else (PowerFacts(what="rapl package-0", watt=Figure(value=watt)),)
    return AgentAnswer(facts or host(), Figure(value=offset_ms, n=1), power)


def ready(
    url: str, answer: AgentAnswer | None = None, at: str = FIRST, triton: TritonFacts = NEWEST
) -> Contact:
    return Contact(url, at, "ready", triton, answer)


def unreachable(url: str, at: str = LATER) -> Contact:
    return Contact(url, at, "unreachable", failure="refused")


def check(previous: NetworkState, servers: ServersSpec, contacts: dict[str, Contact]) -> Merged:
    """A check whose new ids are 00000001, 00000001, 00000002, 00000002 and so on."""
    numbers = itertools.count(2)
    return merge(previous, servers, contacts, lambda: f"{next(numbers) // 2:08x}")


def with_links(state: NetworkState, *pairs: tuple[str, str]) -> NetworkState:
    figure = {"value": 1.0}
    keys = ("bandwidth_mib_s", "round_trip_ms", "call_ms", "copy_ms_per_mib")
    links = [
        {"from": a, "to": b, "measured_at": FIRST, **dict.fromkeys(keys, figure)} for a, b in pairs
    ]
    data = state.model_dump(mode="json", by_alias=True, exclude_none=True)
    return NetworkState.from_data({**data, "links": links})


@pytest.fixture
def known() -> NetworkState:
    """Servers a and b, seen on one host, and their links."""
    contacts = {n: ready(f"{n}:1", agent(watt=5)) for n in "ab"}
    state = check(NetworkState(), spec("ab"), contacts).state
    return with_links(state, ("a", "b"), ("b", "a"))


def ids(state: NetworkState) -> dict[str, str]:
    return {server.name: server.id for server in state.servers}


def test_servers_of_a_first_check_join_with_different_ids() -> None:
    merged = check(
        NetworkState(), spec("ab"), {"a": ready("a:1", agent()), "b": unreachable("b:1")}
    )
    assert merged.joined == ("a", "b")
    assert ids(merged.state) == {"a": "00000001", "b": "00000002"}
    a, b = merged.state.servers
    assert (a.state, a.seen_at, a.host_seen_at, a.host) == ("ready", FIRST, FIRST, host())
    assert (b.state, b.checked_at, b.seen_at, b.host) == ("unreachable", LATER, None, None)
    assert (a.problems, b.problems) == ((), ("can't be reached at b:1: refused",))
    assert NetworkState.from_data(merged.state.model_dump(mode="json")) == merged.state


def test_what_can_not_be_reached_keeps_its_facts_and_their_time(known: NetworkState) -> None:
    contacts = {"a": unreachable("a:9"), "b": ready("b:1", agent(host("h2")), LATER)}
    merged = check(known, spec("ab"), contacts)
    a, b = merged.state.servers
    assert (a.url, a.state, a.checked_at, a.seen_at) == ("a:9", "unreachable", LATER, FIRST)
    assert (a.host, a.triton, a.host_seen_at) == (host(), NEWEST, FIRST)
    assert a.power[0].watt.value == 5
    assert (b.host, b.seen_at, b.host_seen_at) == (host("h2"), LATER, LATER)
    assert ids(merged.state) == ids(known)
    assert (merged.joined, merged.left, merged.renamed) == ((), (), ())
    assert merged.state.links == known.links


def test_a_check_without_agents_keeps_what_they_found(known: NetworkState) -> None:
    newer = NEWEST.model_copy(update={"version": "2.71.0"})
    contacts = {n: ready(f"{n}:1", None, LATER, newer) for n in "ab"}
    a, _ = check(known, spec("ab"), contacts).state.servers
    assert (a.seen_at, a.triton) == (LATER, newer)
    assert (a.host_seen_at, a.host, a.power) == (FIRST, host(), known.servers[0].power)


def test_a_server_that_left_is_dropped_with_its_links(known: NetworkState) -> None:
    merged = check(known, spec("ac"), {"a": unreachable("a:1"), "c": unreachable("c:1")})
    assert (merged.joined, merged.left, merged.renamed) == (("c",), ("b",), ())
    assert merged.state.links == ()
    assert ids(merged.state) == {"a": "00000001", "c": "00000003"}


def test_a_renamed_server_keeps_id_and_links(known: NetworkState) -> None:
    contacts = {"a": ready("a:1", agent()), "n": ready("b:1", agent())}
    merged = check(known, spec("an"), contacts)
    assert (merged.joined, merged.left, merged.renamed) == ((), (), (("b", "n"),))
    assert ids(merged.state) == {"a": "00000001", "n": "00000002"}
    assert [(x.source, x.target) for x in merged.state.links] == [("a", "n"), ("n", "a")]
    assert (
        NetworkState.from_data(merged.state.model_dump(mode="json", by_alias=True)) == merged.state
    )


@pytest.mark.parametrize(
    "found",
    [
        ready("b:1", agent(host("h2"))),  # another host at the address
        ready("c:1", agent()),  # another server of the host
        ready("b:1"),  # of which nothing is known
        unreachable("b:1"),
    ],
)
def test_another_server_gets_an_id_of_its_own(known: NetworkState, found: Contact) -> None:
    merged = check(known, spec("an"), {"a": ready("a:1", agent()), "n": found})
    assert (merged.joined, merged.left, merged.renamed) == (("n",), ("b",), ())
    assert merged.state.server("n") is not None
    assert ids(merged.state)["n"] == "00000003"
    assert merged.state.links == ()


def test_a_server_that_stays_is_not_renamed_to_another(known: NetworkState) -> None:
    """b took the address of a, and c is new at that of b."""
    contacts = {"b": ready("a:1", agent()), "c": ready("b:1", agent())}
    merged = check(known, spec("bc"), contacts)
    assert ids(merged.state) == {"b": "00000002", "c": "00000003"}
    assert (merged.left, merged.renamed) == (("a",), ())


def test_servers_stand_in_the_order_of_the_servers_file(known: NetworkState) -> None:
    contacts = {n: unreachable(f"{n}:1") for n in "ab"}
    assert list(ids(check(known, spec("ba"), contacts).state)) == ["b", "a"]


def test_power_of_servers_yaml_stands_in_where_none_is_read(known: NetworkState) -> None:
    servers = spec("ab", compute_power_watt=9.0, tx_other_power_watt=0.0)
    rows = configured_power(servers.entry)
    assert [(row.what, row.watt.value, row.watt.source) for row in rows] == [
        ("compute", 9.0, "configured"),
        ("tx_other", 0.0, "configured"),
    ]
    without = {n: ready(f"{n}:1", agent()) for n in "ab"}
    state = check(known, servers, without).state
    assert [server.power for server in state.servers] == [rows, ()]
    changed = spec("ab", compute_power_watt=8.0)
    later = check(state, changed, {n: unreachable(f"{n}:1") for n in "ab"}).state
    assert later.servers[0].power == configured_power(changed.entry)
    assert check(known, servers, {n: unreachable("x:1") for n in "ab"}).state.servers[0].power == (
        known.servers[0].power
    )


SERVER = spec("a", threads=4, memory_mib=1024.0).entry


def problems_and_warnings(contact: Contact, server: Server = SERVER) -> tuple[str, str]:
    findings = find_problems(server, contact)
    return "\n".join(findings.problems), "\n".join(findings.warnings)


def test_a_server_with_all_that_is_needed() -> None:
    assert problems_and_warnings(ready("a:1", agent(offset_ms=999))) == ("", "")


@pytest.mark.parametrize(
    ("contact", "problem", "warning"),
    [
        (unreachable("a:1"), "can't be reached at a:1: refused", ""),
        (Contact("a:1", FIRST, "not_ready", NEWEST), "is not ready", ""),
        (ready("a:1", agent(host(memory_total_bytes=2**30 - 1))), "memory_mib 1024 of", ""),
        (ready("a:1", agent(host(cores=3))), "", "threads 4 of servers.yaml are more than the 3"),
        (ready("a:1", agent(offset_ms=1500)), "", "1.5 s ahead"),
        (ready("a:1", agent(offset_ms=-2000)), "", "2.0 s behind"),
        (ready("a:1", agent(host(onnxruntime=None, providers=()))), "", "no onnxruntime"),
        (ready("a:1", agent(host(providers=("X",)))), "needs CPUExecutionProvider", ""),
        (Contact("a:1", FIRST, "ready", NEWEST, failure="why"), "", "the agent failed: why"),
        (Contact("a:1", FIRST, "ready", NEWEST, found_agent=True), "", "loaded already"),
        (
            Contact("a:1", FIRST, "ready", NEWEST, failure="explicit model load / unload is not"),
            "--model-control-mode=explicit",
            "",
        ),
    ],
)
def test_what_is_objected_to(contact: Contact, problem: str, warning: str) -> None:
    problems, warnings = problems_and_warnings(contact)
    assert problem in problems
    assert warning in warnings
    assert (bool(problems), bool(warnings)) == (bool(problem), bool(warning))


@pytest.mark.parametrize("provider", ["openvino", "cuda"])
def test_an_execution_provider_that_is_not_there(provider: str) -> None:
    server = spec("a", execution_provider=provider).entry
    names = {"openvino": "OpenVINOExecutionProvider", "cuda": "CUDAExecutionProvider"}
    problems, _ = problems_and_warnings(ready("a:1", agent()), server)
    assert f"execution_provider {provider} needs {names[provider]}" in problems
    with_it = ready("a:1", agent(host(providers=(names[provider],))))
    assert problems_and_warnings(with_it, server) == ("", "")


@pytest.mark.parametrize(
    ("version", "missing", "secure"),
    [
        ("2.70.0", 0, True),
        ("2.70.0dev", 0, True),
        ("3.0.0", 0, True),
        ("2.69.9", 0, False),
        ("2.47.0", 0, False),
        ("2.46.0", 1, False),
        ("2.9.0", 2, False),
    ],
)
def test_old_tritons(version: str, missing: int, secure: bool) -> None:
    old = NEWEST.model_copy(update={"version": version})
    findings = find_problems(SERVER, ready("a:1", triton=old))
    assert len(findings.problems) == missing
    assert all("too old" in text for text in findings.problems)
    assert ("lacks security fixes" in "\n".join(findings.warnings)) is not secure


def test_a_version_of_unknown_form_is_told() -> None:
    odd = NEWEST.model_copy(update={"version": "nightly"})
    assert version_of("nightly") is None
    assert "'nightly' is of no known form" in problems_and_warnings(ready("a:1", triton=odd))[1]


def test_the_table_goes_from_the_newest_down() -> None:
    versions = [RELEASES[SECURITY_RELEASE], *(feature.version for feature in FEATURES)]
    assert versions == sorted(versions, reverse=True)


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda x: x.name)
def test_a_missing_extension(extension: Any) -> None:
    rest = tuple(x.name for x in EXTENSIONS if x is not extension)
    lacking = NEWEST.model_copy(update={"extensions": rest})
    texts = problems_and_warnings(ready("a:1", triton=lacking))
    assert f"no extension '{extension.name}'" in texts[0 if extension.required else 1]
    assert texts[1 if extension.required else 0] == ""


def test_the_shortest_call_tells_the_offset_of_a_clock() -> None:
    # The clock there is 10 s ahead; it was read at the very end of the long call.
    figure = clock_offset([(0.0, 10.4, 0.4), (1.0, 11.05, 1.1), (2.0, 12.2, 2.3)])
    assert figure.value == pytest.approx(10_000)
    assert figure.low == pytest.approx(9_950)
    assert figure.high == pytest.approx(10_050)
    assert figure.n == 3


def lab(**urls: str) -> LabState:
    process = {"pid": 1, "started_ticks": 0}
    rest = dict.fromkeys(("http_url", "metrics_url", "repository", "log_file", "shm_prefix"), "")
    servers = [{"name": n, "process": process, "grpc_url": u, **rest} for n, u in urls.items()]
    return LabState.from_data({"servers": servers})


def test_addresses_come_from_the_lab_and_else_from_the_servers_file() -> None:
    assert server_urls(spec("ab"), None) == {"a": "a:1", "b": "b:1"}
    assert server_urls(spec("ab"), lab(b="lab:2", c="lab:3")) == {"a": "a:1", "b": "lab:2"}


def test_servers_without_an_address_of_their_own_are_named() -> None:
    rows = [{"name": n, "tier": "edge", "entry": n == "a"} for n in "abc"]
    servers = ServersSpec.from_data({"servers": rows})
    with pytest.raises(InputError) as caught:
        server_urls(servers, lab(b="lab:2"))
    assert [fault[:10] for fault in caught.value.faults] == ["server 'a'", "server 'c'"]
    with pytest.raises(InputError, match=r"'a' and 'b' have the same url x:1"):
        server_urls(servers, lab(a="x:1", b="x:1", c="y:1"))
