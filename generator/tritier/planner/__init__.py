"""Place layers on servers and group them into components. No input or output happens here."""

from tritier.planner.assignment import resolve_assignment
from tritier.planner.build import PlannedLayer, assemble_plan, crossing_tensors, plan_groups
from tritier.planner.components import Group, group_layers

__all__ = [
    "Group",
    "PlannedLayer",
    "assemble_plan",
    "crossing_tensors",
    "group_layers",
    "plan_groups",
    "resolve_assignment",
]
