"""What tensors lose that cross between servers in fewer bits, each measured alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from tritier.calibration import Arrays, Inputs
from tritier.divider import WholeModel, coded_model
from tritier.documents import Ranges, TensorProfile, WireNoise, suits
from tritier.errors import InputError, did_you_mean
from tritier.graph import LoadedModel, profile_model
from tritier.noise import Metric
from tritier.workflow.problem_costs import crosses
from tritier.workflow.problem_request import matching

LossyCodec = Literal["fp16", "int8"]
LOSSY_CODECS: tuple[LossyCodec, ...] = ("fp16", "int8")
Report = Callable[[str], None]


@dataclass(frozen=True)
class CodedTensor:
    """A tensor of a model, its type (numpy's name) and the codec that it is to be measured in."""

    name: str
    dtype: str
    codec: LossyCodec


def coded_tensors(
    model: LoadedModel, wanted: Sequence[tuple[str, LossyCodec]], ranges: Ranges | None
) -> tuple[CodedTensor, ...]:
    """The tensors that are meant by names or shell patterns, each with its codec, once.

    Raises InputError for names that no tensor has, for tensors that the codec does not make
    smaller, and for int8 without a range, unless ranges are still to be calibrated. What a pattern
    matches and the codec does not suit is left out.
    """
    if not wanted:  # the profile of a large model takes a while
        return ()
    tensors = {x.name: x for x in profile_model(model).tensors if x.consumers and crosses(x)}
    found: dict[tuple[str, str], CodedTensor] = {}
    faults = []
    for pattern, codec in wanted:
        names = matching(pattern, tensors)
        chosen = [name for name in names if _suits(tensors[name], codec)]
        if not names:
            faults.append(
                f"'{pattern}' is no tensor of the model that may cross between servers"
                f"{did_you_mean(pattern, tensors)}"
            )
        elif not chosen:
            faults.append(f"{codec} makes no tensor smaller that '{pattern}' stands for")
        known = chosen if ranges is None or codec != "int8" else ranges.ranges
        missing = [name for name in chosen if name not in known]
        faults += [
            f"'{name}' has no range, which int8 needs: calibrate it with `tritier ranges "
            f"--tensor '{name}'`"
            for name in missing
        ]
        for name in chosen:
            found[name, codec] = CodedTensor(name, tensors[name].dtype or "", codec)
    if faults:
        raise InputError(faults)
    return tuple(found.values())


def _suits(tensor: TensorProfile, codec: LossyCodec) -> bool:
    return suits(codec, tensor.dtype or "")


def wire_noise(
    model: LoadedModel,
    tensors: Sequence[CodedTensor],
    inputs: Inputs,
    ranges: Ranges,
    metric: Metric,
    outputs: Sequence[str] = (),
    report: Report = lambda _: None,
) -> list[WireNoise]:
    """The noise of each tensor over all inputs, with all that read it reading it coded and decoded,
    in some outputs of the model, in all if none is named.

    One run of the model for each input and tensor, and one for the float model. Raises InputError
    when ONNX Runtime refuses a model or an input.
    """
    if not tensors:
        return []
    report("the float model, for the noise of wires")
    whole = WholeModel(model.proto.SerializeToString(), "all")
    kept = tuple(outputs) or tuple(whole.outputs)
    reference = [_only(whole.run(arrays), kept) for arrays in inputs]
    found = []
    for number, tensor in enumerate(tensors, 1):
        report(f"'{tensor.name}' in {tensor.codec}, {number} of {len(tensors)} tensors")
        found.append(_noise_of(model, tensor, inputs, reference, ranges, metric))
    return found


def _noise_of(
    model: LoadedModel,
    tensor: CodedTensor,
    inputs: Inputs,
    reference: Sequence[Arrays],
    ranges: Ranges,
    metric: Metric,
) -> WireNoise:
    limits = ranges.ranges.get(tensor.name)
    proto = coded_model(model.proto, tensor.name, tensor.codec, tensor.dtype, limits)
    coded = WholeModel(proto.SerializeToString(), "all")
    noise = metric.over(
        (expected, _only(coded.run(arrays), expected))
        for arrays, expected in zip(inputs, reference, strict=True)
    )
    return WireNoise(tensor=tensor.name, codec=tensor.codec, noise=noise, inputs=len(reference))


def _only(arrays: Arrays, names: Collection[str]) -> Arrays:
    return {name: arrays[name] for name in names}
