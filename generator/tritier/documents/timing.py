"""The timing profile of a model on a server: what each layer takes there."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.figures import CalibratedBy, Duration, Figure, Timestamp
from tritier.documents.network import HostFacts
from tritier.documents.plan import PlanModel
from tritier.documents.servers import ExecutionProvider, Quantization, ServerName

Ms = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Method = Literal["profiler", "layers"]


class TimingSettings(Document):
    """How it was measured."""

    method: Method
    execution_provider: ExecutionProvider
    threads: int = Field(ge=1)
    quantization: Quantization
    warmup: int = Field(ge=0, description="runs before those that count")
    runs: int = Field(ge=1)
    pause_ms: float = Field(
        default=0.0, ge=0, description="how long the server rested before each run"
    )


class LayerTiming(Document):
    """A layer: corrected times, which add up, and what was measured.

    A layer that runs fused with others may have no time of its own: the main one has it.
    """

    name: str = Field(min_length=1)
    float_ms: Ms = Field(description="corrected")
    int8_ms: Ms | None = Field(
        default=None, description="corrected; left out if it can't be quantized"
    )
    measured_float: Duration
    measured_int8: Duration | None = None

    @property
    def gain_ms(self) -> float:
        """What quantizing it saves; negative if it makes the layer slower."""
        return 0.0 if self.int8_ms is None else self.float_ms - self.int8_ms


class BorderTiming(Document):
    """A tensor that ONNX Runtime keeps in another memory layout: what its maker and its readers do
    besides where it crosses the border of a component."""

    tensor: str = Field(min_length=1)
    making_ms: Ms
    reading_ms: Ms


class ServingTiming(Document):
    """What serving a model costs besides running it, from models that do nothing."""

    call_ms: Ms = Field(description="of every request")
    tensor_ms: Ms = Field(description="of every input and output")
    copy_ms_per_mib: Ms = Field(description="of every MiB of inputs and outputs")


class CodingTiming(Document):
    """What a float tensor costs that crosses a link in a codec, besides what serving costs:
    encoding costs the component that makes it, decoding each one that reads it."""

    codec: Literal["fp16", "int8", "uint8"]
    encoding_ms: Ms = Field(description="of every tensor")
    encoding_ms_per_mib: Ms = Field(description="of every MiB that it has as float32")
    decoding_ms: Ms = Field(description="of every tensor")
    decoding_ms_per_mib: Ms = Field(description="of every MiB that it has as float32")


class Corrections(Document):
    """What measured times were multiplied by, so that they add up to the whole model's."""

    float_scale: float = Field(gt=0)
    gain_scale: float | None = Field(default=None, description="left out if nothing is quantized")
    gain_shift_ms: float | None = Field(
        default=None, description="what was added to each gain after that"
    )


class ComponentCheck(Document):
    """A component that was cut out and measured, beside what the profile predicts of it."""

    first_layer: str
    last_layer: str
    layers: int = Field(ge=1)
    quantized: bool = Field(description="all its layers that can be quantized are")
    predicted_ms: Ms
    measured: Duration
    predicted_bytes: Bytes | None = Field(
        default=None,
        description="by the factors of all other models; left out if a size is not known",
    )
    measured_bytes: Bytes = Field(
        description="resident memory at the peak, above that of a model that does nothing"
    )

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return (self.predicted_ms - self.measured.median_ms) / self.measured.median_ms


class MemoryFigures(Document):
    """Resident memory of the whole model at its peak, above that of a model that does nothing, and
    what ONNX Runtime takes of weights and activations: weight_factor x weights +
    activation_factor x the peak of activations is what is predicted of a component."""

    weight_bytes: Bytes
    activation_peak_bytes: Bytes | None = Field(
        default=None, description="left out if a size is not known"
    )
    measured_bytes: Bytes
    weight_factor: float = Field(ge=0, description="fitted to the whole model and components")
    activation_factor: float = Field(ge=0, description="fitted to the same")
    process_bytes: Bytes = Field(description="of a model that does nothing")


class EnergyFigures(Document):
    """Energy of one inference of the whole model on the server."""

    compute_power_watt: Figure | None = None
    whole_joule: Figure | None = Field(
        default=None, description="measured by a counter, or predicted from power and time"
    )
    mixed_joule: Figure | None = None
    counter: str | None = Field(default=None, description="which counter measured it")


class TimingProfile(Document):
    """Times of a model on a server, in the model's order of layers."""

    title: ClassVar[str] = "timing profile"

    format: Literal["tritier/timing/1"] = "tritier/timing/1"
    model: PlanModel
    dims: dict[str, Annotated[int, Field(ge=1)]] = Field(default={})
    server: ServerName
    host: HostFacts
    measured_at: Timestamp = Field(description="of the oldest measurement in it")
    settings: TimingSettings
    layers: tuple[LayerTiming, ...] = Field(min_length=1)
    borders: tuple[BorderTiming, ...] = ()
    fused: tuple[tuple[str, ...], ...] = Field(
        default=(), description="layers that run as one kernel, the one that has its time first"
    )
    whole: Duration = Field(description="the whole model, served")
    mixed: Duration | None = Field(
        default=None, description="the same with every layer quantized that can be"
    )
    whole_alone: Duration = Field(
        description="the whole model in a process of its own, outside Triton, without slow-down"
    )
    serving: ServingTiming
    codings: tuple[CodingTiming, ...] | None = Field(
        default=None, description="codecs of wires; left out by earlier versions"
    )
    corrections: Corrections
    unmapped_float_ms: Ms = Field(
        default=0.0, description="time of kernels that belong to no layer, before correction"
    )
    unmapped_int8_ms: Ms = 0.0
    components: tuple[ComponentCheck, ...] = ()
    memory: MemoryFigures
    energy: EnergyFigures = EnergyFigures()
    profiling_s: float = Field(
        ge=0, description="time that measuring took, when it was done, without the components"
    )
    calibrated_by: tuple[CalibratedBy, ...] | None = Field(
        default=None, description="corrected by what plans took; oldest first"
    )

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names that stand twice."""
        faults = []
        for key, name in (("layers", "name"), ("borders", "tensor"), ("codings", "codec")):
            items = data.get(key)
            if not isinstance(items, list):
                continue
            counts = Counter(str(x.get(name)) for x in items if isinstance(x, dict))
            faults += [f"{key}: '{x}' stands {n} times" for x, n in counts.items() if n > 1]
        return faults

    @property
    def sum_over_whole(self) -> float:
        """Sum of the layers' measured times over that of the whole model, both outside Triton."""
        total = sum(layer.measured_float.median_ms for layer in self.layers)
        return total / self.whole_alone.median_ms

    def coding(self, codec: str) -> CodingTiming | None:
        """What a codec costs; None if that was not measured."""
        return next((item for item in self.codings or () if item.codec == codec), None)

    @property
    def gaining_layers(self) -> tuple[str, ...]:
        """Layers that are faster quantized on this server (rule R7)."""
        return tuple(layer.name for layer in self.layers if layer.gain_ms > 0)
