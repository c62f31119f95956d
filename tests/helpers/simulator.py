"""Runs generated repositories without Triton: an interpreter of their configs.

It knows what a server does with an ensemble, an ONNX model and the three Python models, and takes
everything else from the configs, so that a fault in those shows as a wrong answer, a wrong shape, a
deadlock or a tensor left in a mailbox.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

from tests.helpers.configs import Configs, Crossing, is_remote, is_tensor, parameters, read_configs
from tritier.divider import Array, Arrays
from tritier.divider.run import open_session

# Turns of the event loop in which nothing happens, after which nothing ever will.
_IDLE_TURNS = 100


class Deadlock(Exception):
    """Some step waits for what nobody makes."""


class BadTensor(Exception):
    """A tensor that the config of a model does not allow."""


@dataclass
class _Waiting:
    names: list[str]
    answer: asyncio.Future[Arrays]


@dataclass
class _Mailbox:
    tensors: Arrays = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    waiting: list[_Waiting] = field(default_factory=list)


class Simulation:
    """The servers of one plan. `crossed` counts every (tensor, from, to) that was sent."""

    def __init__(self, files: Mapping[str, bytes], configs: Configs | None = None) -> None:
        self.configs = read_configs(files) if configs is None else configs
        self._files = files
        self._sessions: dict[tuple[str, str], Any] = {}
        self._keys = 0
        self._progress = 0
        self._mailboxes: dict[tuple[str, str, bytes], _Mailbox] = {}
        self._sending: set[asyncio.Task[Arrays]] = set()
        self.crossed: Counter[Crossing] = Counter()

    def infer(
        self, server: str, model: str, inputs: Mapping[str, Array], outputs: Sequence[str] = ()
    ) -> Arrays:
        """One request of an app, for some outputs or for all."""
        return asyncio.run(self._infer(server, model, dict(inputs), outputs))

    def left_over(self) -> list[str]:
        """Tensors that still lie in mailboxes."""
        return [name for box in self._mailboxes.values() for name in box.tensors]

    async def _infer(
        self, server: str, model: str, inputs: Arrays, wanted: Sequence[str]
    ) -> Arrays:
        task = asyncio.ensure_future(self._call(server, model, inputs, wanted))
        await self._until_idle(task)
        answer = await task
        for sending in list(self._sending):
            await self._until_idle(sending)
            await sending
        return answer

    async def _until_idle(self, task: asyncio.Future[Any]) -> None:
        seen, idle = self._progress, 0
        while not task.done():
            await asyncio.sleep(0)
            idle = idle + 1 if self._progress == seen else 0
            seen = self._progress
            if idle > _IDLE_TURNS:
                task.cancel()
                raise Deadlock(", ".join(self._hopes()) or "an ensemble waits for ever")

    def _hopes(self) -> list[str]:
        return [
            f"mailbox of {server}: {waiting.names}"
            for (server, _, _), box in self._mailboxes.items()
            for waiting in box.waiting
        ]

    async def _call(
        self, server: str, model: str, inputs: Arrays, wanted: Sequence[str] = ()
    ) -> Arrays:
        """Outputs of a model; `wanted` are the names that were asked for, none for all."""
        config = self.configs[server, model]
        self._progress += 1
        for tensor in config.input:
            if tensor.name in inputs:
                _check(config, tensor, inputs[tensor.name])
            elif not tensor.optional:
                raise BadTensor(f"{server}/{model}: input '{tensor.name}' is missing")
        if config.platform == "ensemble":
            outputs = await self._ensemble(server, config, inputs, wanted)
        elif config.backend == "onnxruntime":
            outputs = self._run_onnx(server, config, inputs)
        elif is_remote(config):
            outputs = await self._remote(server, config, inputs)
        elif model.endswith("__mailbox"):
            if set(inputs) == {"key"}:
                return await self._take(server, config, inputs["key"], list(wanted))
            return self._put(server, config, inputs)
        else:
            self._keys += 1
            outputs = {"key": np.array([self._keys, 0], dtype=np.uint64)}
        for tensor in config.output:
            if tensor.name in outputs:
                _check(config, tensor, outputs[tensor.name])
        self._progress += 1
        return outputs

    async def _ensemble(
        self, server: str, config: Any, inputs: Arrays, wanted: Sequence[str]
    ) -> Arrays:
        loop = asyncio.get_running_loop()
        wanted = wanted or [tensor.name for tensor in config.output]
        steps = _steps_for(config, wanted)
        names = set(inputs) | {name for step in steps for name in step.output_map.values()}
        values: dict[str, asyncio.Future[Array]] = {name: loop.create_future() for name in names}
        for name, array in inputs.items():
            values[name].set_result(array)
        tasks = [asyncio.ensure_future(self._step(server, step, values)) for step in steps]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return {name: values[name].result() for name in wanted}

    async def _step(self, server: str, step: Any, values: dict[str, asyncio.Future[Array]]) -> None:
        inputs = {name: await values[source] for name, source in step.input_map.items()}
        outputs = await self._call(server, step.model_name, inputs, list(step.output_map))
        for name, target in step.output_map.items():
            values[target].set_result(outputs[name])

    def _run_onnx(self, server: str, config: Any, inputs: Arrays) -> Arrays:
        key = server, config.name
        if key not in self._sessions:
            data = self._files[f"{server}/{config.name}/1/model.onnx"]
            self._sessions[key] = open_session(data, "disabled", 1)
        names = [tensor.name for tensor in config.output]
        return dict(zip(names, self._sessions[key].run(names, inputs), strict=True))

    async def _remote(self, server: str, config: Any, inputs: Arrays) -> Arrays:
        settings = parameters(config)
        target = settings["server"]
        ordering = json.loads(settings.get("ordering", "[]"))
        message = {name: array for name, array in inputs.items() if name not in ordering}
        self.crossed.update((name, server, target) for name in message if is_tensor(name))
        names = [tensor.name for tensor in config.output]
        asked = names if settings.get("name_outputs") == "true" else []
        call = self._send(server, target, settings["model_name"], message, asked)
        if names == ["sent"]:
            self._sending.add(asyncio.ensure_future(call))
            return {"sent": np.array([True])}
        outputs = await call
        return {name: outputs[name] for name in names}

    async def _send(
        self, server: str, target: str, model: str, message: Arrays, asked: list[str]
    ) -> Arrays:
        """A call over a link; all that the other model answers comes back."""
        outputs = await self._call(target, model, message, asked)
        self.crossed.update((name, target, server) for name in outputs if is_tensor(name))
        self._progress += 1
        return outputs

    def _put(self, server: str, config: Any, inputs: Arrays) -> Arrays:
        key = inputs["key"].tobytes()
        box = self._mailboxes.setdefault((server, config.name, key), _Mailbox())
        tensors = {name: array for name, array in inputs.items() if name != "key"}
        again = [name for name in tensors if name in box.tensors or name in box.taken]
        if again:
            raise BadTensor(f"{server}: {again} were put before")
        box.tensors.update(tensors)
        self._hand_out(server, config, key)
        return {"ack": np.array([True])}

    async def _take(self, server: str, config: Any, key: Array, names: list[str]) -> Arrays:
        box = self._mailboxes.setdefault((server, config.name, key.tobytes()), _Mailbox())
        waiting = _Waiting(names, asyncio.get_running_loop().create_future())
        box.waiting.append(waiting)
        self._hand_out(server, config, key.tobytes())
        return await waiting.answer

    def _hand_out(self, server: str, config: Any, key: bytes) -> None:
        takes = json.loads(parameters(config)["takes"])
        box = self._mailboxes[server, config.name, key]
        for waiting in [w for w in box.waiting if all(name in box.tensors for name in w.names)]:
            box.waiting.remove(waiting)
            waiting.answer.set_result({name: box.tensors[name] for name in waiting.names})
            box.taken.update(waiting.names)
            for name in waiting.names:
                if box.taken[name] >= takes[name]:
                    del box.tensors[name]
        self._progress += 1


def _steps_for(config: Any, wanted: Sequence[str]) -> list[Any]:
    """The steps that lead to an output that was asked for; Triton leaves out all others."""
    needed, kept = set(wanted), []
    waiting = list(config.ensemble_scheduling.step)
    while found := [step for step in waiting if needed & set(step.output_map.values())]:
        waiting = [step for step in waiting if not any(step is other for other in found)]
        kept += found
        needed.update(source for step in found for source in step.input_map.values())
    return kept


def _check(config: Any, tensor: Any, array: Array) -> None:
    """Triton's own check of a tensor against a config."""
    dims = ([-1] if config.max_batch_size > 0 else []) + list(tensor.dims)
    name = type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type
    dtype = name.values_by_number[tensor.data_type].name.removeprefix("TYPE_")
    fits = len(dims) == array.ndim and all(
        dim in (-1, size) for dim, size in zip(dims, array.shape, strict=True)
    )
    if not fits or np.dtype(triton_to_np_dtype(dtype)) != array.dtype:
        raise BadTensor(
            f"{config.name}: '{tensor.name}' is {dtype} {dims}, got {array.dtype} {array.shape}"
        )
