"""Choose how the tensors of a plan are coded on their wires, and which layers are quantized."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

import onnx

from tritier.divider import quantized_tensors
from tritier.documents import (
    NARROWING,
    QUANTIZING,
    WIRE_DTYPES,
    Codec,
    Plan,
    PlanTensor,
    Range,
    Ranges,
    Wire,
    suiting,
    suits,
)
from tritier.errors import InputError, did_you_mean
from tritier.graph import LayerGraph, LoadedModel, holds, integer_bounds


def code_plan(
    plan: Plan,
    model: LoadedModel,
    graph: LayerGraph,
    quantized_layers: Sequence[str] = (),
    ranges: Ranges | None = None,
    wire_codec: Codec | None = None,
    wire_codecs: Mapping[str, Codec] | None = None,
) -> Plan:
    """The plan with these layers (names or patterns) quantized and its wires coded.

    `wire_codecs` maps tensor names or patterns to codecs and goes before `wire_codec`, which holds
    for every tensor that it suits. Without either, what quantized layers read and make crosses in
    8 bits, which loses nothing more, and all else as it is. With a `wire_codec`, integers that are
    sure to fit go in a narrower type. Raises InputError for names that nothing matches, codecs that
    don't suit a tensor, and ranges that are missing or of another model.
    """
    if not quantized_layers and wire_codec is None and not wire_codecs:
        return plan
    known = _ranges_of(plan, ranges)
    layers = _resolve(quantized_layers, [layer.name for layer in graph.layers])
    draft = _rebuilt(plan, layers, known, plan.wires)
    chosen = _Choice(
        wire_codec,
        wire_codecs or {},
        known,
        quantized_tensors(model.proto, graph, draft) if layers else {},
        _bounds(plan, model.proto),
    )
    _check_patterns(plan, wire_codecs or {})
    tensors = {tensor.id: tensor for tensor in plan.tensors}
    wires = [chosen.wire(wire, tensors[wire.tensor]) for wire in plan.wires]
    used = {t for x in graph.layers if x.name in layers for t in (*x.inputs, *x.outputs)}
    used |= {tensors[w.tensor].name for w in wires if w.codec in QUANTIZING}
    missing = [
        f"tensor '{name}' is to cross in 8 bits and has no range: calibrate it with "
        "`tritier ranges` and pass the file with --ranges"
        for name in dict.fromkeys(
            tensors[wire.tensor].name for wire in wires if wire.codec in QUANTIZING
        )
        if name not in known
    ]
    if missing:
        raise InputError(missing)
    return _rebuilt(plan, layers, {n: known[n] for n in known if n in used}, wires)


class _Choice:
    """Picks the codec of each wire."""

    def __init__(
        self,
        default: Codec | None,
        patterns: Mapping[str, Codec],
        ranges: Mapping[str, Range],
        paired: Mapping[str, str],
        bounds: Mapping[str, tuple[int, int]],
    ) -> None:
        self._default = default
        self._patterns = patterns
        self._ranges = ranges
        self._paired = paired
        self._bounds = bounds

    def wire(self, wire: Wire, tensor: PlanTensor) -> Wire:
        """The wire with its codec."""
        return Wire.of(wire.tensor, wire.source, wire.target, self._codec(tensor))

    def _codec(self, tensor: PlanTensor) -> Codec:
        stated = first_match(tensor.name, self._patterns)
        if stated is not None:
            return self._checked(stated, tensor)
        paired = self._paired.get(tensor.name)
        if paired is not None and self._default in (None, *QUANTIZING):
            return "uint8" if paired == "uint8" else "int8"
        if self._default in (None, "as_is"):
            return "as_is"
        if suits(self._default, tensor.dtype) and self._default not in NARROWING:
            return self._default
        return self._narrow(tensor)

    def _narrow(self, tensor: PlanTensor) -> Codec:
        """The narrowest type that is proven to hold an integer tensor."""
        bounds = self._bounds.get(tensor.name)
        for codec in NARROWING:
            if bounds and suits(codec, tensor.dtype) and holds(WIRE_DTYPES[codec], bounds):
                return codec
        return "as_is"

    def _checked(self, codec: Codec, tensor: PlanTensor) -> Codec:
        if not suits(codec, tensor.dtype):
            raise InputError(
                f"tensor '{tensor.name}' is {tensor.dtype}; its codec may be "
                f"{', '.join(suiting(tensor.dtype))}, not {codec}"
            )
        if codec in NARROWING:
            known = [source.get(tensor.name) for source in (self._bounds, self._ranges)]
            found = [bounds for bounds in known if bounds is not None]
            if not any(holds(WIRE_DTYPES[codec], bounds) for bounds in found):
                text = (
                    f"go from {found[-1][0]:.10g} to {found[-1][1]:.10g}"
                    if found
                    else "are not known"
                )
                raise InputError(
                    f"the values of tensor '{tensor.name}' {text}, so {codec} could change them: "
                    "calibrate it with `tritier ranges`, or choose a wider codec"
                )
        return codec


def first_match(name: str, patterns: Mapping[str, Codec]) -> Codec | None:
    """The codec of an exact name, else of the first pattern that matches."""
    if name in patterns:
        return patterns[name]
    return next((c for p, c in patterns.items() if fnmatch.fnmatchcase(name, p)), None)


def _bounds(plan: Plan, model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    crossing = {wire.tensor for wire in plan.wires}
    return integer_bounds(
        model, [t.name for t in plan.tensors if t.id in crossing and t.dtype.startswith("int")]
    )


def _ranges_of(plan: Plan, ranges: Ranges | None) -> dict[str, Range]:
    if ranges is None:
        return {}
    if ranges.model_sha256 != plan.model.sha256:
        raise InputError(
            f"the ranges are of a model with sha256 {ranges.model_sha256[:12]}..., the plan is for "
            f"{plan.model.sha256[:12]}...: calibrate this model with `tritier ranges`"
        )
    return ranges.ranges


def _resolve(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Layers by name or pattern, in the model's order."""
    chosen: set[str] = set()
    faults = []
    for pattern in patterns:
        exact = [pattern] if pattern in names else []
        matches = exact or [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            hint = did_you_mean(pattern, names)
            faults.append(f"quantized_layers: '{pattern}' is no layer and matches none{hint}")
        chosen.update(matches)
    if faults:
        raise InputError(faults)
    return [name for name in names if name in chosen]


def _check_patterns(plan: Plan, patterns: Mapping[str, Codec]) -> None:
    crossing = {wire.tensor for wire in plan.wires}
    names = [tensor.name for tensor in plan.tensors if tensor.id in crossing]
    faults = [
        f"wire_codecs: no tensor that crosses a link is called or matches '{pattern}'"
        f"{did_you_mean(pattern, names)}; those are {', '.join(names[:5]) or 'none'}"
        for pattern in patterns
        if pattern not in names and not any(fnmatch.fnmatchcase(n, pattern) for n in names)
    ]
    if faults:
        raise InputError(faults)


def _rebuilt(
    plan: Plan, layers: Sequence[str], ranges: Mapping[str, Range], wires: Iterable[Wire]
) -> Plan:
    """Validated again, with an id of its own."""
    fields = {name: getattr(plan, name) for name in Plan.model_fields}
    return Plan(**fields | {
        "plan_id": None,
        "quantized_layers": tuple(layers),
        "ranges": dict(ranges) or None,
        "wires": tuple(wires),
    })  # fmt: skip
