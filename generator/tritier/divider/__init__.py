"""Cut models into sub-models, and prove that the parts give what the whole gives."""

from tritier.divider.batch import decide_batching
from tritier.divider.codec_nodes import CodecNodes, decoder, encoder
from tritier.divider.coded import coded_model
from tritier.divider.compare import Comparison, Difference
from tritier.divider.cut import SubModel, check_against_model, cut_model
from tritier.divider.quantize import FIRST_OPSET
from tritier.divider.quantized import ModelQuantizer, QuantizedBody, in_order, uncut_model
from tritier.divider.realise import Realised, quantized_tensors, realise
from tritier.divider.run import Array, Arrays, Chain, WholeModel, check_loads, random_inputs
from tritier.divider.scalars import wrap_scalars

__all__ = [
    "FIRST_OPSET",
    "Array",
    "Arrays",
    "Chain",
    "CodecNodes",
    "Comparison",
    "Difference",
    "ModelQuantizer",
    "QuantizedBody",
    "Realised",
    "SubModel",
    "WholeModel",
    "check_against_model",
    "check_loads",
    "coded_model",
    "cut_model",
    "decide_batching",
    "decoder",
    "encoder",
    "in_order",
    "quantized_tensors",
    "random_inputs",
    "realise",
    "uncut_model",
    "wrap_scalars",
]
