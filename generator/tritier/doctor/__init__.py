"""What is missing on this machine, and whether generated repositories fit a stock Triton."""

from tritier.doctor.portability import check_repositories
from tritier.doctor.releases import ReleaseTable, release_table
from tritier.doctor.report import machine_report

__all__ = ["ReleaseTable", "check_repositories", "machine_report", "release_table"]
