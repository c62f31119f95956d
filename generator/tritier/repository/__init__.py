"""From a plan and its sub-models to one Triton model repository per server."""

from tritier.repository.dataplane import build_data_plane
from tritier.repository.family import (
    FAMILY_NAME,
    FamilyPart,
    generate_family_files,
    plan_file,
    without_whole,
)
from tritier.repository.read import PlanPart, Repositories
from tritier.repository.render import TRITON_TYPES, Renderer, parse_config
from tritier.repository.router import entry_name, family_id
from tritier.repository.types import GenerateOptions, TritonModel
from tritier.repository.write import MANIFEST_NAME, PLAN_NAME, generate_files, write_files

__all__ = [
    "FAMILY_NAME",
    "MANIFEST_NAME",
    "PLAN_NAME",
    "TRITON_TYPES",
    "FamilyPart",
    "GenerateOptions",
    "PlanPart",
    "Renderer",
    "Repositories",
    "TritonModel",
    "build_data_plane",
    "entry_name",
    "family_id",
    "generate_family_files",
    "generate_files",
    "parse_config",
    "plan_file",
    "without_whole",
    "write_files",
]
