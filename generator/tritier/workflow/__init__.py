"""Stages put together: what commands, and users of the library, call."""

from tritier.workflow.coding import code_plan
from tritier.workflow.generate import generate, model_of_plan, remember
from tritier.workflow.importing import import_plan, read_recorded_plan, read_recorded_plans
from tritier.workflow.noise import (
    DEFAULT_INPUTS,
    DEFAULT_VERIFICATION,
    NoiseFit,
    NoiseRequest,
    learn_noise,
    measurer_of,
)
from tritier.workflow.noise_fit import refit, settle_pick
from tritier.workflow.plan import plan_from_assignment, plan_from_placement
from tritier.workflow.timing_bench import Runs
from tritier.workflow.timing_profile import Method
from tritier.workflow.timing_run import ProfileRequest, profile_on_servers, without_unquantizable
from tritier.workflow.verify import Verdict, gather_inputs, infer, verify_chained, verify_live

__all__ = [
    "DEFAULT_INPUTS",
    "DEFAULT_VERIFICATION",
    "Method",
    "NoiseFit",
    "NoiseRequest",
    "ProfileRequest",
    "Runs",
    "Verdict",
    "code_plan",
    "gather_inputs",
    "generate",
    "import_plan",
    "infer",
    "learn_noise",
    "measurer_of",
    "model_of_plan",
    "plan_from_assignment",
    "plan_from_placement",
    "profile_on_servers",
    "read_recorded_plan",
    "read_recorded_plans",
    "refit",
    "remember",
    "settle_pick",
    "verify_chained",
    "verify_live",
    "without_unquantizable",
]
