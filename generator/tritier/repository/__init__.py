"""From a plan and its sub-models to one Triton model repository per server."""

from tritier.repository.dataplane import build_data_plane
from tritier.repository.read import Repositories
from tritier.repository.render import TRITON_TYPES, Renderer, parse_config
from tritier.repository.types import GenerateOptions, TritonModel
from tritier.repository.write import MANIFEST_NAME, PLAN_NAME, generate_files, write_files

__all__ = [
    "MANIFEST_NAME",
    "PLAN_NAME",
    "TRITON_TYPES",
    "GenerateOptions",
    "Renderer",
    "Repositories",
    "TritonModel",
    "build_data_plane",
    "generate_files",
    "parse_config",
    "write_files",
]
