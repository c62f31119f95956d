"""How each tensor travels from the component that makes it to those that need it.

A tensor between two components takes one of five ways:

  local    both on the entry: a tensor of the entry ensemble
  call     the entry owns it and one component on server h needs it: an input of that one's call
  back     the entry needs it: an output of the producer's call
  fetch    the entry needs it, but so do others, on other servers, from the same producer, and apps
           may ask for some of the model's outputs only: out of the mailbox of the producer's server
  mailbox  all else: put into the mailbox of server h, once, however many components there take it

The fetch is there because Triton leaves out the steps of an ensemble that lead to no output that
was asked for. A call whose every output was left out would not be made, and those who wait for its
puts would wait in vain.

So a tensor crosses each link at most once (rule R3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tritier.documents import Component, Plan

KEY = "key"
# Where the model's inputs come from, in place of a component.
GENERATOR = "in"


@dataclass(frozen=True)
class Put:
    """The tensors of one producer that go into one mailbox, in one message."""

    producer: str
    source: str
    target: str
    tensors: tuple[str, ...]


class Routes:
    """The ways of all tensors of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.entry = plan.entry.name
        self._components = {c.id: c for c in plan.components}
        self._server = {c.id: c.server for c in plan.components}
        self._producer = {t: c.id for c in plan.components for t in c.outputs}
        self.puts = self._find_puts()
        self._boxed = {(t, put.target) for put in self.puts for t in put.tensors}

    def producer(self, tensor: str) -> str:
        """Id of the component that makes the tensor, or GENERATOR."""
        return self._producer.get(tensor, GENERATOR)

    def source_server(self, tensor: str) -> str:
        """Where the tensor is made; model inputs are on the entry."""
        return self._server.get(self.producer(tensor), self.entry)

    def takers(self, tensor: str, server: str) -> list[str]:
        """The components on a server that need the tensor."""
        return [c.id for c in self._plan.components if c.server == server and tensor in c.inputs]

    def call_inputs(self, component: Component) -> list[str]:
        """What the entry sends along with the call of a remote component."""
        return [
            t
            for t in component.inputs
            if self.source_server(t) == self.entry and (t, component.server) not in self._boxed
        ]

    def taken_from_mailbox(self, component: Component) -> list[str]:
        """What a remote component takes from the mailbox of its server."""
        return [t for t in component.inputs if (t, component.server) in self._boxed]

    def returned(self, component: Component) -> list[str]:
        """What a remote component's call brings back to the entry."""
        return [] if self.fetched(component) else self._needed_on_entry(component)

    def fetched(self, component: Component) -> list[str]:
        """What the entry fetches from the mailbox of a remote component's server."""
        if len(self._plan.outputs) == 1:
            return []
        remote = [server.name for server in self._plan.servers if server.name != self.entry]
        feeds = any(self.takers(t, server) for t in component.outputs for server in remote)
        return self._needed_on_entry(component) if feeds else []

    def takes(self, tensor: str, server: str) -> int:
        """How often the tensor is taken from the mailbox of a server."""
        takers = len(self.takers(tensor, server))
        producer = self._components.get(self.producer(tensor))
        if producer is None or producer.server != server:
            return takers
        return takers + (tensor in self.fetched(producer))

    def _needed_on_entry(self, component: Component) -> list[str]:
        return [
            t for t in component.outputs if t in self._plan.outputs or self.takers(t, self.entry)
        ]

    def puts_of(self, producer: str) -> list[Put]:
        """The puts of a component, or of GENERATOR."""
        return [put for put in self.puts if put.producer == producer]

    def needs_stage(self, component: Component) -> bool:
        """Whether a remote component needs an ensemble around it."""
        return bool(self.taken_from_mailbox(component) or self.puts_of(component.id))

    def mailbox_tensors(self, server: str) -> list[str]:
        """All tensors that pass through the mailbox of a server, without repetition."""
        return [t for put in self.puts if put.target == server for t in put.tensors]

    def mailbox_servers(self) -> list[str]:
        """The servers that have a mailbox, in the order of the plan."""
        targets = {put.target for put in self.puts}
        return [server.name for server in self._plan.servers if server.name in targets]

    def _find_puts(self) -> tuple[Put, ...]:
        puts = []
        for producer, tensors in self._made():
            source = self._server.get(producer, self.entry)
            for target in (s.name for s in self._plan.servers if s.name != self.entry):
                boxed = tuple(t for t in tensors if self._goes_by_mailbox(t, source, target))
                if boxed:
                    puts.append(Put(producer, source, target, boxed))
        return tuple(puts)

    def _goes_by_mailbox(self, tensor: str, source: str, target: str) -> bool:
        takes = self.takes(tensor, target)
        return takes > 1 if source == self.entry else takes > 0

    def _made(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        yield GENERATOR, self._plan.inputs
        yield from ((c.id, c.outputs) for c in self._plan.components)
