"""Tries a model in several forms, and takes the most simplified one that answers as the original.

One copy of the constants is in memory at a time: each form is made of a new model, and lies in a
file while the original and it are run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from tritier.documents import Preprocessing
from tritier.errors import InputError
from tritier.graph.image_input import put_preprocessing
from tritier.graph.layers import build_layer_graph
from tritier.graph.load import load_external_data, read_model
from tritier.graph.prepare_compare import Difference, NotComparable, Trial, compare, make_trials
from tritier.graph.prepare_sizes import declare_sizes
from tritier.graph.prepare_steps import computation, name_nodes
from tritier.graph.simplify import simplified
from tritier.graph.tensors import model_inputs

MERGED, FOLDED, PLAIN = "yes", "without merging", "no"
_WHAT = {MERGED: "merging of layers", FOLDED: "simplification"}


@dataclass
class Choice:
    """The form that was chosen: MERGED, FOLDED or PLAIN. `runs` were compared: 0 when it is the
    `same` computation as the original, or the original does not run; `messages` tell why other
    forms were not taken."""

    model: onnx.ModelProto
    how: str
    runs: int = 0
    difference: Difference = field(default_factory=Difference)
    messages: list[str] = field(default_factory=list)
    same: bool = False


@dataclass(frozen=True)
class Task:
    """What to choose among. `make` gives a new model that is to be simplified, at each call; the
    constants of a `large` one lie beside `path`, the original. `obstacle` says why it can't be
    simplified, if so. Where `must_compare`, a model that can't be compared is an error.
    `computation` is the original's; `equal_names` tells whether nodes of it share one."""

    path: Path
    make: Callable[[], onnx.ModelProto]
    large: bool
    simplify: bool
    obstacle: str
    preprocessing: Preprocessing | None
    must_compare: bool
    computation: str
    equal_names: bool


def choose_form(task: Task) -> Choice:
    """The first form that answers as the original does.

    Raises InputError when not even the plain one does.
    """
    forms = [MERGED, FOLDED, PLAIN] if task.simplify and not task.obstacle else [PLAIN]
    messages = []
    if task.simplify and task.obstacle:
        messages.append(f"the model is not simplified: {task.obstacle}")
    trials: list[Trial] | None = None
    with tempfile.TemporaryDirectory(prefix="tritier-prepare-") as scratch:
        while forms:
            form = forms.pop(0)
            made = _made(form, task, Path(scratch))
            if isinstance(made, str):
                messages.append(f"{_WHAT[form]} is left out: {made}")
                continue
            if made.computation == task.computation:
                return Choice(made.model(), form, messages=messages, same=True)
            try:
                trials = trials or _trials(task, made.ends)
            except NotComparable as error:
                if task.must_compare:
                    text = f"the result can't be compared with the original: {error}"
                    raise InputError(text, str(task.path)) from None
                if form == PLAIN:
                    return Choice(made.model(), form, messages=messages)
                messages.append(
                    f"simplification is left out, since nothing can be compared: {error}"
                )
                forms = [PLAIN]
                continue
            difference = compare(made.stored, task.path.parent.resolve(), trials)
            if not difference.fault:
                return Choice(made.model(), form, len(trials), difference, messages)
            if form == PLAIN:
                text = f"the prepared model is not right: {difference.fault}"
                raise InputError(text, str(task.path))
            messages.append(f"{_WHAT[form]} is left out: {difference.fault}")
    raise AssertionError("the plain form returns or raises")


@dataclass(frozen=True)
class _Made:
    """A form that is out of memory: a file or, of a large model, its bytes without constants.
    `ends` has its inputs as the original's are, before preprocessing is put in."""

    stored: Path | bytes
    ends: onnx.ModelProto
    computation: str

    def model(self) -> onnx.ModelProto:
        if isinstance(self.stored, bytes):
            return onnx.load_model_from_string(self.stored)
        return onnx.load(str(self.stored))


def _made(form: str, task: Task, scratch: Path) -> _Made | str:
    """A form, or why simplification failed."""
    model = task.make()
    ends = onnx.ModelProto()
    ends.graph.input.extend(model_inputs(model.graph))
    if form != PLAIN:
        try:
            model = simplified(model, merge=form == MERGED)
            build_layer_graph(model)
        except Exception as error:  # whatever the simplifier raises
            return " ".join(str(error).split())[:200] or type(error).__name__
    if task.preprocessing is not None:
        put_preprocessing(model, task.preprocessing)
    name_nodes(model.graph)
    declare_sizes(model)
    build_layer_graph(model)
    if task.large:
        return _Made(model.SerializeToString(deterministic=True), ends, computation(model))
    file = scratch / "model.onnx"
    file.write_bytes(model.SerializeToString(deterministic=True))
    return _Made(file, ends, computation(model))


def _trials(task: Task, ends: onnx.ModelProto) -> list[Trial]:
    original: Path | onnx.ModelProto = task.path
    if task.equal_names:  # ONNX Runtime takes no nodes with equal names
        original = read_model(task.path, unique_nodes=False)
        load_external_data(original, task.path)
        name_nodes(original.graph)
    return make_trials(original, ends, task.preprocessing)
