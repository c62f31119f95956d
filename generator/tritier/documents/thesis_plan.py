"""A plan as the system of the thesis records it: components by server number, without layers.

A component is named by the text of a Python tuple, `('model', '1', 0)`: model, server number,
position on that server. Two components hold no layers: the generator, where the model's inputs
start, and the receiver, where its outputs end.
"""

from __future__ import annotations

import ast
import graphlib
from typing import Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field

from tritier.documents.base import Document

_LONGEST_KEY = 1000  # characters; what is longer is no key, and parsing it could take long


class ThesisKey(NamedTuple):
    """Name of a component: model, server number, position among the components of that server."""

    model: str
    server: str
    position: int

    def __str__(self) -> str:
        """As it stands in the file."""
        return str(tuple(self))

    @classmethod
    def parse(cls, text: str) -> ThesisKey:
        """Read `('model', '1', 0)`; raises ValueError for anything else. Nothing is evaluated but
        literals."""
        try:
            value = ast.literal_eval(text) if len(text) <= _LONGEST_KEY else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
        match value:
            case (str(model), str() | int() as server, int(position)) if (
                isinstance(value, tuple) and str(server).isdecimal() and position >= 0
            ):
                return cls(model, str(int(server)), int(position))
        raise ValueError(f"'{text}' is no (model, server, position) such as ('yolo', '1', 0)")


class ThesisComponent(Document):
    """A component and where its outputs go."""

    # The file is of another program, which may record more than is read here.
    model_config = ConfigDict(extra="ignore")

    component_size: int = Field(ge=0, description="number of layers; 1 of generator and receiver")
    quantized_nodes_num: int = Field(default=0, ge=0)
    is_only_input: bool = Field(default=False, description="the generator")
    is_only_output: bool = Field(default=False, description="the receiver")
    input_names: tuple[str, ...]
    output_connections: dict[str, tuple[str, ...]] = Field(
        description="tensor -> the components that need it"
    )

    @property
    def has_layers(self) -> bool:
        """Neither generator nor receiver."""
        return not (self.is_only_input or self.is_only_output)


class ThesisPlan(Document):
    """Components on numbered servers, and what the planner predicted."""

    title: ClassVar[str] = "recorded plan"
    model_config = ConfigDict(extra="ignore")

    model_name: str
    plan_dict: dict[str, ThesisComponent] = Field(min_length=1)
    quantized_nodes: tuple[str, ...] = Field(default=(), description="names of layers")
    latency_value: float | None = Field(default=None, ge=0, description="predicted, seconds")
    energy_value: float | None = Field(default=None, ge=0, description="predicted, joule")

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Keys that can't be read, connections that don't agree, cycles."""
        try:
            return _faults(data)
        except (AttributeError, KeyError, TypeError):
            return []  # a field has a wrong shape, which is reported where it stands

    @property
    def all_components(self) -> dict[ThesisKey, ThesisComponent]:
        """Every component by its key, in the order of the file."""
        return {ThesisKey.parse(text): item for text, item in self.plan_dict.items()}

    @property
    def components(self) -> dict[ThesisKey, ThesisComponent]:
        """The components that hold layers."""
        return {key: item for key, item in self.all_components.items() if item.has_layers}

    @property
    def generator(self) -> tuple[ThesisKey, ThesisComponent]:
        """Where the model's inputs start."""
        return next((k, c) for k, c in self.all_components.items() if c.is_only_input)

    @property
    def receiver(self) -> tuple[ThesisKey, ThesisComponent]:
        """Where the model's outputs end."""
        return next((k, c) for k, c in self.all_components.items() if c.is_only_output)

    @property
    def predecessors(self) -> dict[ThesisKey, set[ThesisKey]]:
        """For each component that holds layers, those that send something to it."""
        before: dict[ThesisKey, set[ThesisKey]] = {key: set() for key in self.components}
        for key, item in self.components.items():
            for target in {t for targets in item.output_connections.values() for t in targets}:
                if (parsed := ThesisKey.parse(target)) in before:
                    before[parsed].add(key)
        return before

    @property
    def servers(self) -> tuple[str, ...]:
        """The server numbers in use, in rising order."""
        return tuple(sorted({key.server for key in self.all_components}, key=int))


def _faults(data: dict[str, Any]) -> list[str]:
    """Faults of plain data; raises KeyError and the like if a field has a wrong shape."""
    faults = []
    items: dict[ThesisKey, dict[str, Any]] = {}
    for text, item in data["plan_dict"].items():
        try:
            key = ThesisKey.parse(text)
        except ValueError as error:
            faults.append(f"plan_dict: {error}")
            continue
        if key in items:
            faults.append(f"plan_dict: {key} stands twice")
        if key.model != data["model_name"]:
            faults.append(
                f"plan_dict: {key} is of another model than model_name, '{data['model_name']}'"
            )
        items[key] = item
    for flag, what in (("is_only_input", "generator"), ("is_only_output", "receiver")):
        count = sum(1 for item in items.values() if item.get(flag))
        if count != 1:
            faults.append(f"plan_dict: {count} components are the {what} ({flag}); one must be")
    if not any(_has_layers(item) for item in items.values()):
        faults.append("plan_dict: no component holds layers")
    return faults or _connection_faults(items)


def _has_layers(item: dict[str, Any]) -> bool:
    return not (item.get("is_only_input") or item.get("is_only_output"))


def _connection_faults(items: dict[ThesisKey, dict[str, Any]]) -> list[str]:
    """Each tensor has one source, and both its ends name it."""
    faults = []
    source: dict[str, ThesisKey] = {}
    sent: dict[ThesisKey, set[str]] = {key: set() for key in items}
    before: dict[ThesisKey, set[ThesisKey]] = {key: set() for key in items}
    for key, item in items.items():
        for tensor, targets in item["output_connections"].items():
            if item.get("is_only_output"):
                continue  # it lists the model's outputs, which go nowhere from there
            if source.setdefault(tensor, key) != key:
                faults.append(f"plan_dict: '{tensor}' is an output of {source[tensor]} and {key}")
            if not targets:
                faults.append(f"plan_dict: {key}: its output '{tensor}' goes to no component")
            for text in targets:
                fault = _target_fault(items, key, tensor, text)
                if fault:
                    faults.append(f"plan_dict: {key}: {fault}")
                    continue
                target = ThesisKey.parse(text)
                sent[target].add(tensor)
                before[target].add(key)
    for key, item in items.items():
        if not item.get("is_only_input"):
            faults += [
                f"plan_dict: {key}: nothing sends its input '{tensor}' to it"
                for tensor in item["input_names"]
                if tensor not in sent[key]
            ]
    return faults + _cycle_faults(before)


def _target_fault(
    items: dict[ThesisKey, dict[str, Any]], key: ThesisKey, tensor: str, text: str
) -> str:
    """What is wrong with sending a tensor to a component; an empty text if nothing is."""
    try:
        target = ThesisKey.parse(text)
    except ValueError as error:
        return f"the target of '{tensor}': {error}"
    if target == key:
        return f"'{tensor}' goes to itself"
    if target not in items:
        return f"'{tensor}' goes to {target}, which is no component of the plan"
    if tensor not in items[target]["input_names"]:
        return f"'{tensor}' goes to {target}, which does not have it among its inputs"
    return ""


def _cycle_faults(before: dict[ThesisKey, set[ThesisKey]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(str(key) for key in error.args[1])
        return [f"plan_dict: the components wait for each other (rule R2): {circle}"]
    return []
