"""Several instances that share a turn on a real Triton: its rate limiter with the settings that are
generated, on processor instances of a Python-based backend."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import tritonclient.grpc as triton

from benchmarks.sharing_server import Clients, Layout, Pinned, Sent, pinned_server
from tritier.costs.sharing_config import RESOURCE

SHARERS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pinned]:
    folder = tmp_path_factory.mktemp("sharing")
    with pinned_server(folder, Layout(SHARERS, 1), max(os.sched_getaffinity(0))) as found:
        yield found


def test_the_server_has_the_settings(server: Pinned) -> None:
    with triton.InferenceServerClient(server.url) as client:
        config = client.get_model_config("shared_0").config
    (group,) = config.instance_group
    assert [(x.name, x.count) for x in group.rate_limiter.resources] == [(RESOURCE, 1)]


def test_sharers_take_turns_once_around(server: Pinned) -> None:
    """While all wait, nobody is served twice before somebody else was served at all."""
    with Clients(server.url, Layout(SHARERS, 1).names) as clients:
        sent = clients.closed(SHARERS, 1.0, 8)
    for own, items in enumerate(sent):
        for other, others in enumerate(sent):
            if other != own:
                assert longest_run(items, others) <= 3


def longest_run(items: list[Sent], others: list[Sent]) -> int:
    """The most requests of one sharer that began and ended within one of another's."""
    return max(
        sum(other.due_s < item.due_s and item.done_s < other.done_s for item in items)
        for other in others
    )


def test_who_was_idle_goes_first_until_that_is_made_up(server: Pinned) -> None:
    """What Triton 24.10 does, and docs/sharing.md warns of: turns count since the model's load."""
    names = Layout(SHARERS, 1).names
    with Clients(server.url, names) as clients:
        clients.closed(1, 0.0, 25)  # the first sharer, alone
    # The two that were idle keep the first one waiting.
    with Clients(server.url, [names[1], names[2], names[0]]) as clients:
        sent = clients.closed(3, 0.0, 12)
    longest = max(item.latency_ms for item in sent[2])
    typical = sorted(item.latency_ms for item in sent[0])[len(sent[0]) // 2]
    assert longest > 4 * typical
