"""From a plan to the Triton models of every server: control from the entry, data along links.

Nothing here depends on a particular model: a plan compiles to configurations of five generic models
(ONNX component, remote, mailbox, key, ensemble).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tritier.documents import WHOLE, Batching, Component, Plan
from tritier.repository.routes import GENERATOR, KEY, Put, Routes
from tritier.repository.types import GenerateOptions, Step, TritonModel, TritonTensor

# The output of a remote model that answers when its message is sent, not when it is answered.
SENT = "sent"
_KEY_TENSOR = TritonTensor(KEY, "uint64", (2,))
# How long a tensor that nobody takes is kept, beyond the deadline of its request.
_MAILBOX_GRACE_MS = 5_000

__all__ = ["app_tensors", "build_data_plane", "whole_model"]


def build_data_plane(
    plan: Plan, batching: Batching, options: GenerateOptions, entry_name: str | None = None
) -> list[TritonModel]:
    """Every Triton model of a plan; models stand before the ensembles that use them.

    `entry_name`: of the entry ensemble, the model's own name by default.
    """
    return _Builder(plan, batching, options, entry_name or plan.model.name).build()


class _Builder:
    def __init__(
        self, plan: Plan, batching: Batching, options: GenerateOptions, entry_name: str
    ) -> None:
        self._plan = plan
        self._entry_name = entry_name
        self._options = options
        self._batch = batching.max_batch_size
        self._routes = Routes(plan)
        self._components = {component.id: component for component in plan.components}
        self._prefix = f"{plan.model.name}__{plan.id}__"
        self._mailbox = f"{self._prefix}mailbox"

    def build(self) -> list[TritonModel]:
        routes = self._routes
        models = [self._component(c) for c in self._plan.components]
        models += [self._mailbox_model(server) for server in routes.mailbox_servers()]
        models += [self._put_model(p) for p in routes.puts if p.source != p.target]
        remote = [c for c in self._plan.components if c.server != routes.entry]
        models += [self._stage(c) for c in remote if routes.needs_stage(c)]
        models += [self._call(c) for c in remote]
        models += [self._fetch(c) for c in remote if routes.fetched(c)]
        if routes.puts:
            models.append(self._key_model())
        if self._options.with_whole:
            models.append(whole_model(self._plan, self._batch))
        return [*models, self._entry_model()]

    # -- models that compute ------------------------------------------------------------------

    def _component(self, component: Component) -> TritonModel:
        return TritonModel(
            server=component.server,
            name=self._prefix + component.id,
            kind="component",
            component=component.id,
            inputs=self._tensors(component.inputs),
            outputs=self._tensors(component.outputs),
            max_batch_size=self._batch,
            comment=f"Component {component.id}: {_layers_text(component.layers)}",
        )

    # -- models that move tensors --------------------------------------------------------------

    def _mailbox_model(self, server: str) -> TritonModel:
        tensors = self._routes.mailbox_tensors(server)
        takes = {t: self._routes.takes(t, server) for t in tensors}
        return TritonModel(
            server=server,
            name=self._mailbox,
            kind="mailbox",
            inputs=(
                _KEY_TENSOR,
                *self._tensors(tensors, optional=True),
                TritonTensor("poison", "string", (1,), optional=True),
            ),
            outputs=(*self._tensors(tensors), _flag("ack")),
            parameters={
                "server": server,
                "plan_id": self._plan.id,
                "takes": json.dumps(takes),
                "deadline_ms": str(self._options.deadline_ms),
                "ttl_ms": str(self._options.deadline_ms + _MAILBOX_GRACE_MS),
                "max_bytes": str(self._options.mailbox_max_bytes),
            },
            comment="Where tensors from other components wait for those that need them",
        )

    def _key_model(self) -> TritonModel:
        smallest = min(self._plan.inputs, key=self._size_of)
        return TritonModel(
            server=self._routes.entry,
            name=f"{self._prefix}key",
            kind="key",
            inputs=self._tensors([smallest]),
            outputs=(_KEY_TENSOR,),
            comment="Makes the key of each request, under which its tensors meet in the mailboxes",
        )

    def _put_model(self, put: Put) -> TritonModel:
        from_entry = put.source == self._routes.entry
        parameters = self._remote_parameters(put.source, put.target, put.producer, self._mailbox)
        return TritonModel(
            server=put.source,
            name=self._put_name(put),
            kind="remote",
            component=None if put.producer == GENERATOR else put.producer,
            inputs=(_KEY_TENSOR, *self._tensors(put.tensors)),
            outputs=(_flag(SENT if from_entry else "ack"),),
            parameters=parameters,
            comment=f"Puts {', '.join(put.tensors)} into the mailbox of server '{put.target}'",
        )

    def _call(self, component: Component) -> TritonModel:
        routes = self._routes
        staged = routes.needs_stage(component)
        target = f"{self._prefix}{component.id}" + ("__stage" if staged else "")
        tokens = [_flag(name) for name in self._tokens(component)]
        parameters = self._remote_parameters(routes.entry, component.server, component.id, target)
        if tokens:
            parameters["ordering"] = json.dumps([token.name for token in tokens])
        returned = self._tensors(routes.returned(component))
        return TritonModel(
            server=routes.entry,
            name=f"{self._prefix}{component.id}__call",
            kind="remote",
            component=component.id,
            inputs=(*self._stage_inputs(component), *tokens),
            outputs=returned or (_flag(SENT),),
            parameters=parameters,
            comment=f"Calls component {component.id} on server '{component.server}'",
        )

    def _fetch(self, component: Component) -> TritonModel:
        entry = self._routes.entry
        token = f"{SENT}_{component.id}"
        parameters = self._remote_parameters(entry, component.server, component.id, self._mailbox)
        return TritonModel(
            server=entry,
            name=f"{self._prefix}{component.id}__fetch",
            kind="remote",
            component=component.id,
            inputs=(_KEY_TENSOR, _flag(token)),
            outputs=self._tensors(self._routes.fetched(component)),
            # A mailbox gives what it is asked for; a call without names asks for all.
            parameters={**parameters, "ordering": json.dumps([token]), "name_outputs": "true"},
            comment=f"Takes what component {component.id} has for the entry from its mailbox",
        )

    def _remote_parameters(
        self, on: str, server: str, component: str, model: str
    ) -> dict[str, str]:
        """Parameters of a proxy on one server that calls another."""
        parameters = {
            "on": on,
            "server": server,
            "component": component,
            "plan_id": self._plan.id,
            "model_name": model,
            "deadline_ms": str(self._options.deadline_ms),
        }
        url = self._plan.server(server).url
        if url is not None:
            parameters["url"] = url
        # The entry knows of every failure, of calls and of the puts within them.
        mailboxes = (
            []
            if on != self._routes.entry
            else [
                [name, self._plan.server(name).url or "", self._mailbox]
                for name in self._routes.mailbox_servers()
            ]
        )
        if mailboxes:
            parameters["poison"] = json.dumps(mailboxes)
        return parameters

    # -- ensembles ------------------------------------------------------------------------------

    def _stage_inputs(self, component: Component) -> tuple[TritonTensor, ...]:
        """What the call of a remote component carries."""
        inputs = self._tensors(self._routes.call_inputs(component))
        return (_KEY_TENSOR, *inputs) if self._routes.needs_stage(component) else inputs

    def _tokens(self, component: Component) -> dict[str, str]:
        """Ordering inputs of a remote component's call -> tensors of the entry ensemble.

        A step of which nothing comes back to the entry (a put, or a component that only puts)
        answers as soon as its message is sent, because an ensemble must use every tensor that it
        makes. What uses it is the call of those that wait for the message: no time is lost, and if
        the message fails, its sender poisons the mailboxes in which they wait.
        """
        routes = self._routes
        tokens = {}
        for tensor in routes.taken_from_mailbox(component):
            producer = routes.producer(tensor)
            if routes.source_server(tensor) == routes.entry:
                tokens[f"{SENT}_{producer}"] = _put_token(producer, component.server)
            elif not routes.returned(self._components[producer]):
                tokens[f"{SENT}_{producer}"] = _call_token(producer)
        return tokens

    def _stage(self, component: Component) -> TritonModel:
        routes = self._routes
        taken = routes.taken_from_mailbox(component)
        steps = [Step(self._mailbox, {KEY: KEY}, _same(taken))] if taken else []
        steps.append(
            Step(self._prefix + component.id, _same(component.inputs), _same(component.outputs))
        )
        steps += [self._put_step(put) for put in routes.puts_of(component.id)]
        acks = [_flag(_ack(put)) for put in routes.puts_of(component.id)]
        return TritonModel(
            server=component.server,
            name=f"{self._prefix}{component.id}__stage",
            kind="stage",
            component=component.id,
            inputs=self._stage_inputs(component),
            # The acks make the answer wait until all puts have arrived.
            outputs=(*self._tensors(routes.returned(component)), *acks),
            steps=tuple(steps),
            comment=f"Component {component.id} with what it takes from and puts into mailboxes",
        )

    def _entry_model(self) -> TritonModel:
        names = self._app_names()
        plan, routes = self._plan, self._routes
        steps = []
        if routes.puts:
            smallest = self._key_model().inputs[0].name
            steps.append(Step(f"{self._prefix}key", {smallest: names[smallest]}, {KEY: names[KEY]}))
        steps += [self._entry_put_step(put, names) for put in routes.puts_of(GENERATOR)]
        for component in plan.components:
            steps.append(self._entry_step(component, names))
            if component.server != routes.entry and routes.fetched(component):
                steps.append(self._fetch_step(component, names))
            if component.server == routes.entry:
                steps += [self._entry_put_step(p, names) for p in routes.puts_of(component.id)]
        return TritonModel(
            server=routes.entry,
            name=self._entry_name,
            kind="entry",
            inputs=app_tensors(plan, plan.inputs),
            outputs=app_tensors(plan, plan.outputs),
            max_batch_size=self._batch,
            steps=tuple(steps),
            comment="What apps call: the whole model, run in components on several servers",
        )

    def _entry_step(self, component: Component, names: dict[str, str]) -> Step:
        if component.server == self._routes.entry:
            return Step(
                self._prefix + component.id,
                {t: names[t] for t in component.inputs},
                {t: names[t] for t in component.outputs},
            )
        inputs = {t.name: names[t.name] for t in self._stage_inputs(component)}
        returned = {t: names[t] for t in self._routes.returned(component)}
        return Step(
            f"{self._prefix}{component.id}__call",
            inputs | {name: names[token] for name, token in self._tokens(component).items()},
            returned or {SENT: names[_call_token(component.id)]},
        )

    def _fetch_step(self, component: Component, names: dict[str, str]) -> Step:
        token = _call_token(component.id)
        return Step(
            f"{self._prefix}{component.id}__fetch",
            {KEY: names[KEY], f"{SENT}_{component.id}": names[token]},
            {t: names[t] for t in self._routes.fetched(component)},
        )

    def _entry_put_step(self, put: Put, names: dict[str, str]) -> Step:
        inputs = {t: names[t] for t in (KEY, *put.tensors)}
        token = names[_put_token(put.producer, put.target)]
        return Step(self._put_name(put), inputs, {SENT: token})

    def _put_step(self, put: Put) -> Step:
        """A put at the end of a stage: through a proxy, or into the mailbox of the same server."""
        model = self._mailbox if put.source == put.target else self._put_name(put)
        return Step(model, _same((KEY, *put.tensors)), {"ack": _ack(put)})

    # -- names and tensors ----------------------------------------------------------------------

    def _put_name(self, put: Put) -> str:
        return f"{self._prefix}{put.producer}__put_{put.target}"

    def _app_names(self) -> dict[str, str]:
        """Name of every plan tensor and token inside the entry ensemble: inputs and outputs keep
        the names of the model, and what would collide with one of those gets another."""
        plan = self._plan
        names = {t: plan.tensor(t).name for t in (*plan.inputs, *plan.outputs)}
        taken = set(names.values())
        tokens = [_call_token(component.id) for component in plan.components]
        tokens += [_put_token(put.producer, put.target) for put in self._routes.puts]
        for tensor in (*(t.id for t in plan.tensors), KEY, *tokens):
            if tensor in names:
                continue
            name = tensor
            while name in taken:
                name += "_"
            names[tensor] = name
            taken.add(name)
        return names

    def _tensors(self, tensors: Iterable[str], optional: bool = False) -> tuple[TritonTensor, ...]:
        rows = (self._plan.tensor(t) for t in tensors)
        return tuple(TritonTensor(row.id, row.dtype, row.shape, optional) for row in rows)

    def _size_of(self, tensor: str) -> int:
        size = 1
        for dim in self._plan.tensor(tensor).shape:
            size *= dim if isinstance(dim, int) else 1
        return size


def app_tensors(plan: Plan, tensors: Iterable[str]) -> tuple[TritonTensor, ...]:
    """Tensors as apps know them: by the names of the model."""
    rows = (plan.tensor(t) for t in tensors)
    return tuple(TritonTensor(row.name, row.dtype, row.shape) for row in rows)


def whole_model(plan: Plan, max_batch_size: int) -> TritonModel:
    """The uncut model, on the entry."""
    return TritonModel(
        server=plan.entry.name,
        name=f"{plan.model.name}__{WHOLE}",
        kind="whole",
        inputs=app_tensors(plan, plan.inputs),
        outputs=app_tensors(plan, plan.outputs),
        max_batch_size=max_batch_size,
        comment="The whole model, uncut: the fallback and the baseline",
    )


def _layers_text(layers: Sequence[str]) -> str:
    if not layers:
        return "codes or decodes tensors for a link"
    if len(layers) == 1:
        return f"layer '{layers[0]}'"
    return f"{len(layers)} layers, '{layers[0]}' to '{layers[-1]}'"


def _flag(name: str) -> TritonTensor:
    return TritonTensor(name, "bool", (1,))


def _ack(put: Put) -> str:
    return f"ack_{put.target}"


def _call_token(component: str) -> str:
    return f"{SENT}_{component}"


def _put_token(producer: str, target: str) -> str:
    return f"{SENT}_{producer}_{target}"


def _same(tensors: Iterable[str]) -> dict[str, str]:
    return {t: t for t in tensors}
