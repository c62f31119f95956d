"""From measured times of kernels and models to the timing profile of a model on a server."""

from tritier.timing.borders import CutCost, cut_costs
from tritier.timing.codings import CodingRun, fit_coding
from tritier.timing.correct import Corrected, correct, correct_profiles, times_when_quantized
from tritier.timing.durations import NS_PER_MS, Border, duration, fit_serving, merged_summaries
from tritier.timing.kernels import Attribution, KernelTracer, ModelNode, attribute
from tritier.timing.memory import (
    MemoryFactors,
    MemorySample,
    memory_factors,
    predictions_of_others,
)
from tritier.timing.predict import predict_component_ms, serving_ms

__all__ = [
    "NS_PER_MS",
    "Attribution",
    "Border",
    "CodingRun",
    "Corrected",
    "CutCost",
    "KernelTracer",
    "MemoryFactors",
    "MemorySample",
    "ModelNode",
    "attribute",
    "correct",
    "correct_profiles",
    "cut_costs",
    "duration",
    "fit_coding",
    "fit_serving",
    "memory_factors",
    "merged_summaries",
    "predict_component_ms",
    "predictions_of_others",
    "serving_ms",
    "times_when_quantized",
]
