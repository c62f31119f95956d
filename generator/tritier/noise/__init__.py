"""Quantization noise: measured exactly for a few subsets of layers, predicted for all others."""

from tritier.noise.design import (
    design,
    in_prefix_order,
    layers_of,
    random_design,
    subset_of,
    verification,
)
from tritier.noise.executor import Executor, Program
from tritier.noise.figures import figures, margin, predict
from tritier.noise.fit import fit_squared
from tritier.noise.measure import InputScores, measure_input, self_check
from tritier.noise.metrics import METRICS, Metric, built_in, load_metric
from tritier.noise.polynomial import count_terms, fit_polynomial
from tritier.noise.screen import excluded_layers, screen_input
from tritier.noise.settle import Candidate, Outcome, Settled, settle
from tritier.noise.signal import LEAST_VARIATION, SignalMeter, check_alive

__all__ = [
    "LEAST_VARIATION",
    "METRICS",
    "Candidate",
    "Executor",
    "InputScores",
    "Metric",
    "Outcome",
    "Program",
    "Settled",
    "SignalMeter",
    "built_in",
    "check_alive",
    "count_terms",
    "design",
    "excluded_layers",
    "figures",
    "fit_polynomial",
    "fit_squared",
    "in_prefix_order",
    "layers_of",
    "load_metric",
    "margin",
    "measure_input",
    "predict",
    "random_design",
    "screen_input",
    "self_check",
    "settle",
    "subset_of",
    "verification",
]
