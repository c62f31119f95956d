"""Generated repositories as files for container engines: one service per server of a plan."""

from tritier.export.tiers import (
    CONFIG_DIR,
    PROGRAMS_DIR,
    REPOSITORY_DIR,
    SECRETS_DIR,
    Ports,
    SecretSource,
    Tier,
    Tiers,
    read_tiers,
)
from tritier.export.write import MARKER_NAME, write_export

__all__ = [
    "CONFIG_DIR",
    "MARKER_NAME",
    "PROGRAMS_DIR",
    "REPOSITORY_DIR",
    "SECRETS_DIR",
    "Ports",
    "SecretSource",
    "Tier",
    "Tiers",
    "read_tiers",
    "write_export",
]
