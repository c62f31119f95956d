"""Stages put together: what commands, and users of the library, call."""

from tritier.workflow.generate import generate, model_of_plan, remember
from tritier.workflow.plan import plan_from_assignment, plan_from_placement
from tritier.workflow.verify import Verdict, gather_inputs, infer, verify_chained, verify_live

__all__ = [
    "Verdict",
    "gather_inputs",
    "generate",
    "infer",
    "model_of_plan",
    "plan_from_assignment",
    "plan_from_placement",
    "remember",
    "verify_chained",
    "verify_live",
]
