"""What a watch sees of running servers: who answers, what is loaded, how long requests take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from tritonclient.utils import InferenceServerException

from tritier.deployment.access import connect
from tritier.deployment.client import TritonServer
from tritier.errors import TritierError
from tritier.network.agent import AGENT_NAME, Agent, AgentLimits, push_agent
from tritier.network.quick import LIMIT_S, quick_bandwidth_mib_s
from tritier.workflow.watch import Pair, Seen

# Who does not answer until then is not there.
PATIENCE_S = 1.5


@dataclass(frozen=True)
class ModelCount:
    """Requests of a model that went well since it was loaded, and what they took together."""

    requests: int
    total_ns: int


@dataclass(frozen=True)
class ServerLook:
    """One server: None for `loaded` if it does not answer."""

    loaded: Mapping[str, ModelCount] | None = None


def look_at(url: str, patience_s: float = PATIENCE_S) -> ServerLook:
    """Ask a server which models it serves; a fresh connection, as an old one would wait before it
    tries again. Nothing is raised."""
    client = connect(url, admin=True)
    try:
        if not client.is_server_live(client_timeout=patience_s):
            return ServerLook()
        found = client.get_inference_statistics("", client_timeout=patience_s)
    except InferenceServerException:
        return ServerLook()
    finally:
        client.close()
    return ServerLook(
        {
            item.name: ModelCount(
                item.inference_stats.success.count, item.inference_stats.success.ns
            )
            for item in found.model_stats
        }
    )


@dataclass
class Looker:
    """Looks at all servers side by side. `links` are figures that a prober found since the last
    look."""

    urls: Mapping[str, str]
    links: Callable[[], Mapping[Pair, float]] = dict
    _before: dict[str, ModelCount] = field(default_factory=dict)

    def look(self, wanted: Mapping[str, frozenset[str]], entry: str, measured: str) -> Seen:
        """`wanted`: models that each server should serve; `measured`: the model of the entry whose
        requests are timed."""
        with ThreadPoolExecutor(max(1, len(self.urls))) as executor:
            looks = dict(zip(self.urls, executor.map(look_at, self.urls.values()), strict=True))
        missing = {
            name: len(wanted.get(name, frozenset()) - look.loaded.keys())
            for name, look in looks.items()
            if look.loaded is not None
        }
        requests, mean_ms = self._latency(looks.get(entry, ServerLook()), measured)
        live = {name: look.loaded is not None for name, look in looks.items()}
        return Seen(live, missing, self.links(), mean_ms, requests)

    def _latency(self, look: ServerLook, model: str) -> tuple[int, float | None]:
        now = (look.loaded or {}).get(model)
        before = self._before.get(model)
        if now is None:
            return 0, None
        self._before = {model: now}
        if before is None or now.requests <= before.requests:
            return 0, None
        requests = now.requests - before.requests
        return requests, (now.total_ns - before.total_ns) / requests / 1e6


class LinkProber:
    """Probes one link after another with little traffic, in a thread of its own: a link that is
    stuck must not hold up anything else.

    The agents that it needs are loaded while it runs, again where a server was restarted, and
    unloaded at its end.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        pairs: Sequence[Pair],
        pause_s: float,
        first: Callable[[], Sequence[Pair]] = tuple,
    ) -> None:
        """`first`: links to probe before those whose turn it is."""
        self._urls, self._pairs, self._pause_s, self._first = urls, list(pairs), pause_s, first
        self._known: dict[Pair, float] = {}
        self._news: dict[Pair, float] = {}
        self._agents: dict[str, Agent] = {}
        self._refused: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and unload the agents."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3 * LIMIT_S)
        for name in list(self._agents):
            self._drop(name, unload=True)

    def news(self) -> dict[Pair, float]:
        """Figures (MiB/s) since the last time that this was asked."""
        with self._lock:
            found, self._news = self._news, {}
        return found

    def round(self) -> dict[Pair, float]:
        """Probe every link once, now."""
        for pair in self._pairs:
            self._probe(pair)
        return self.news()

    @property
    def refusals(self) -> Mapping[str, str]:
        """Why a server has no agent: its links are not probed."""
        return dict(self._refused)

    def _run(self) -> None:
        turn = 0
        while self._pairs and not self._stopped.wait(self._pause_s):
            urgent = [pair for pair in self._first() if pair in self._pairs]
            if urgent:
                self._probe(urgent[0])
            else:
                self._probe(self._pairs[turn % len(self._pairs)])
                turn += 1

    def _probe(self, pair: Pair) -> None:
        source, target = pair
        try:
            agent = self._agent(source)
            self._agent(target)
            figure = quick_bandwidth_mib_s(agent, target, self._known.get(pair))
        except TritierError as error:
            # Either may have been restarted, without the agent; the next turn tells.
            for name in pair:
                self._refused[name] = str(error)
                self._drop(name)
            return
        for name in pair:
            self._refused.pop(name, None)
        self._known[pair] = figure or self._known.get(pair, 1.0)
        with self._lock:
            self._news[pair] = figure

    def _agent(self, name: str) -> Agent:
        if name not in self._agents:
            look = look_at(self._urls[name])
            if look.loaded is None:
                raise TritierError(f"server '{name}' does not answer")
            limits = AgentLimits(time_limit_s=2 * LIMIT_S)
            server = TritonServer(name, self._urls[name])
            try:
                if AGENT_NAME not in look.loaded:
                    push_agent(server, {k: str(v) for k, v in self._urls.items()}, limits)
            except BaseException:
                server.close()
                raise
            self._agents[name] = Agent(server, limits)
        return self._agents[name]

    def _drop(self, name: str, unload: bool = False) -> None:
        agent = self._agents.pop(name, None)
        if agent is None:
            return
        with suppress(TritierError):
            if unload:
                agent.server.unload(AGENT_NAME)
        agent.close()
        agent.server.close()
