"""The noise model: how far quantized layers move the outputs of a model, for any choice of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.figures import Timestamp
from tritier.documents.plan import PlanModel
from tritier.documents.ranges import InputFile
from tritier.documents.servers import Quantization
from tritier.errors import InputError, did_you_mean

NotNegative = Annotated[float, Field(ge=0)]
Use = Literal["design", "verification", "pick"]


class NoiseTerm(Document):
    """What is added when all these layers are quantized."""

    layers: tuple[str, ...] = Field(min_length=1, description="in the model's order")
    value: float


class NoiseFigures(Document):
    """How well a noise model tells measured noise. Shares, not per cent."""

    subsets: int = Field(ge=1)
    r2: float = Field(le=1, description="coefficient of determination of the noise")
    mape: NotNegative = Field(description="mean |predicted / measured - 1|")
    spearman: float = Field(ge=-1, le=1, description="correlation of the ranks")
    worst_under: float = Field(description="largest 1 - predicted / measured")
    worst_over: float = Field(description="largest predicted / measured - 1")


class OutputSignal(Document):
    """An output of the float model over the inputs: what noise is to be seen against."""

    mean_abs: NotNegative
    spread: NotNegative = Field(description="standard deviation of all its values")
    variation: NotNegative | None = Field(
        default=None,
        description="how much of the spread hangs on the input: standard deviation of an element "
        "over inputs, root mean square over the elements that all have, by the spread",
    )


class OutputNoise(Document):
    """The noise of one output: its power `power` is linear in products of the choices.

    noise ** power = constant (if any layer is quantized) + sum of the terms all of whose layers are
    quantized, and no less than 0.
    """

    output: str = Field(
        min_length=1, description="of the model; for a metric of the user, its name"
    )
    power: Literal[1, 2]
    constant: float = 0.0
    terms: tuple[NoiseTerm, ...] = Field(min_length=1)
    margin: float | None = Field(
        default=None,
        ge=1,
        description="measured noise is within predictions times this, for 95 % of random subsets; "
        "left out if no factor is enough, as 0 was predicted for noise that is there",
    )
    signal: OutputSignal | None = Field(
        default=None, description="left out for a metric of the user, which looks at all outputs"
    )
    fitted: NoiseFigures = Field(description="on the subsets that the model was fitted to")
    held_out: NoiseFigures | None = Field(default=None, description="on verification subsets")

    def predict(self, layers: Collection[str]) -> float:
        """The noise of quantizing these layers, without the margin. Raises InputError for layers
        that no term is about: their noise is not 0 but unknown."""
        chosen = set(layers)
        known = {name for term in self.terms for name in term.layers}
        if unknown := sorted(chosen - known):
            raise InputError(
                [
                    f"layer '{name}' is not in the noise model of '{self.output}'"
                    f"{did_you_mean(name, known)}: learn it again with that layer"
                    for name in unknown
                ]
            )
        found = [term.value for term in self.terms if chosen.issuperset(term.layers)]
        if not chosen:
            return 0.0
        total = max(math.fsum([self.constant, *found]), 0.0)
        return math.sqrt(total) if self.power == 2 else total

    def budget(self, limit: float) -> float:
        """What constant and terms may sum up to, so that the noise with its margin is within a
        limit: the right-hand side of a linear row. Raises InputError for a limit below 0."""
        if not limit >= 0:
            raise InputError(f"a noise limit of {limit} for '{self.output}': allowed is 0 or more")
        if self.margin is None:
            raise InputError(
                f"no margin makes predictions of '{self.output}' safe: limit another output, or "
                "learn the noise with a metric that does not change in steps"
            )
        return float((limit / self.margin) ** self.power)


class MeasuredSubset(Document):
    """Noise that was measured."""

    layers: tuple[str, ...] = Field(min_length=1, description="quantized, in the model's order")
    use: Use = Field(description="what for; a pick is the choice of a plan")
    noise: dict[str, NotNegative] = Field(description="output -> mean over the inputs")
    inputs: int = Field(ge=1, description="inputs behind it")
    scaled: bool = Field(
        default=False,
        description="measured on fewer inputs than there are, and scaled by what all layers "
        "together make there and on all",
    )


class WireNoise(Document):
    """What a tensor that crosses between servers in fewer bits loses, all else being as it is."""

    tensor: str = Field(min_length=1, description="of the model")
    codec: Literal["fp16", "int8"]
    noise: dict[str, NotNegative] = Field(description="output -> mean over the inputs")
    inputs: int = Field(ge=1, description="inputs behind it")


class ExcludedLayer(Document):
    """A layer that is not to be quantized, and why."""

    name: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class SelfCheck(Document):
    """Subsets for which the measured outputs were compared with those of the quantized model."""

    subsets: int = Field(ge=0)
    max_abs_diff: NotNegative = Field(description="if it is not 0, whole models were run instead")


class NoiseSettings(Document):
    """How it was measured."""

    metric: str = Field(min_length=1, description="mean_abs, max_abs, snr, cosine or FILE:NAME")
    quantization: Quantization
    kernels: Literal["simulated", "real"] = Field(
        description="simulated: quantized values, computed with floats where ONNX Runtime's "
        "'extended' level does; real: with the int8 kernels of this machine"
    )
    degree: int | None = Field(
        default=None, ge=1, description="of a polynomial of the noise; else its square is fitted"
    )
    seed: int
    onnxruntime: str = Field(description="its version")
    processor: str = ""


class NoiseModel(Document):
    """Learned from measured subsets of the layers that may be quantized."""

    title: ClassVar[str] = "noise model"

    format: Literal["tritier/noise/1"] = "tritier/noise/1"
    model: PlanModel
    settings: NoiseSettings
    layers: tuple[str, ...] = Field(min_length=1, description="in the model's order")
    excluded: tuple[ExcludedLayer, ...] = ()
    outputs: tuple[OutputNoise, ...] = Field(min_length=1)
    measured: tuple[MeasuredSubset, ...]
    wires: tuple[WireNoise, ...] = Field(default=(), description="what codecs of tensors lose")
    ranges_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the ranges")
    calibration: tuple[InputFile, ...] = Field(description="inputs behind the ranges, if known")
    inputs: tuple[InputFile, ...] = Field(min_length=1, description="on which noise was measured")
    self_check: SelfCheck | None = None
    measured_at: Timestamp
    elapsed_s: NotNegative

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Unknown or repeated layers and outputs; inputs that the ranges were calibrated on."""
        try:
            return _name_faults(data) + _shared_inputs(data)
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # a field has a wrong shape, which is reported where it stands

    def output(self, name: str) -> OutputNoise:
        """The noise of an output; raises InputError if the model has none of that name."""
        found = {item.output: item for item in self.outputs}
        if name not in found:
            raise InputError(
                f"'{name}' is no output of the noise model{did_you_mean(name, found)}; it has "
                f"{', '.join(found)}"
            )
        return found[name]

    def with_wires(self, found: Iterable[WireNoise]) -> NoiseModel:
        """With what was measured of codecs, of outputs that it knows; what was known of the same
        codecs is replaced."""
        outputs = {item.output for item in self.outputs}
        known = {(item.tensor, item.codec): item for item in self.wires}
        for item in found:
            noise = {name: value for name, value in item.noise.items() if name in outputs}
            known[item.tensor, item.codec] = item.model_copy(update={"noise": noise})
        return self.model_copy(update={"wires": tuple(known.values())})

    def check_model(self, sha256: str) -> None:
        """Raise InputError if it was learned for another model."""
        if self.model.sha256 != sha256:
            raise InputError(
                f"the noise model is for '{self.model.name}' ({self.model.sha256[:12]}...), this "
                f"is {sha256[:12]}...: learn it again with `tritier noise`"
            )


def _name_faults(data: dict[str, Any]) -> list[str]:
    layers = data["layers"]
    outputs = [item["output"] for item in data["outputs"]]
    faults = [
        f"{key}: '{name}' stands {count} times"
        for key, names in (("layers", layers), ("outputs", outputs))
        for name, count in Counter(names).items()
        if count > 1
    ]
    used: list[tuple[str, str]] = []
    for item in data["outputs"]:
        used += [(f"outputs.{item['output']}", x) for term in item["terms"] for x in term["layers"]]
    used += [("measured", x) for item in data["measured"] for x in item["layers"]]
    faults += [
        f"{where}: '{name}' is none of the layers"
        for where, name in dict.fromkeys(used)
        if name not in layers
    ]
    both = [item["name"] for item in data.get("excluded", ()) if item["name"] in layers]
    faults += [f"excluded: '{name}' is among the layers too" for name in both]
    faults += [
        f"measured: {', '.join(item['layers'][:3])}: a layer stands twice in a subset"
        for item in data["measured"]
        if len(set(item["layers"])) < len(item["layers"])
    ]
    for where in ("measured", "wires"):
        for item in data.get(where, ()):
            faults += [f"{where}: '{x}' is none of the outputs" for x in item["noise"]
                       if x not in outputs]  # fmt: skip
    wires = Counter((item["tensor"], item["codec"]) for item in data.get("wires", ()))
    faults += [
        f"wires: '{tensor}' in {codec} stands {count} times"
        for (tensor, codec), count in wires.items()
        if count > 1
    ]
    return faults


def _shared_inputs(data: dict[str, Any]) -> list[str]:
    """Noise measured on what ranges were calibrated on looks smaller than it is."""
    calibrated = {item["sha256"]: item["name"] for item in data["calibration"]}
    return [
        f"inputs: '{item['name']}' is the same as '{calibrated[item['sha256']]}', on which the "
        "ranges were calibrated: measure noise on other inputs"
        for item in data["inputs"]
        if item["sha256"] in calibrated
    ]
