"""A user's first minutes: the wheel in a new virtual environment, and the demo there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.try_wheel import check_equal
from tritier.errors import CheckFailed

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TABLE = """
plan a0a77f31 against the whole model (measured)
┏━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━┓
┃ run     ┃ optimisation ┃ output   ┃ inputs ┃ max |diff| ┃ mean |diff| ┃ allowed ┃ ok  ┃
┡━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━┩
│ chained │ none         │ upscaled │      3 │          0 │           0 │ 0 + 0   │ yes │
│ live    │ all          │ upscaled │      3 │          0 │           0 │ 0 + 0   │ yes │
└─────────┴──────────────┴──────────┴────────┴────────────┴─────────────┴─────────┴─────┘
"""


@pytest.mark.skipif(
    not (SCRIPTS.parent / ".git").exists() or shutil.which("git") is None,
    reason="needs a git checkout: what is built is what git tracks",
)
def test_the_demo_runs_from_the_wheel_alone(tmp_path: Path) -> None:
    """Over a minute: two installations by pip, and the demo."""
    build: list[str | Path] = [
        sys.executable,
        SCRIPTS / "build_dist.py",
        tmp_path,
        "--with-changes",
    ]
    subprocess.run(build, check=True)
    [wheel] = tmp_path.glob("*.whl")
    done = subprocess.run(
        [sys.executable, SCRIPTS / "try_wheel.py", wheel],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the demo runs, the split network equals the whole one" in done.stdout
    assert "pip install 'tritier[embedded,demo]'" in done.stdout


def test_equal_is_equal() -> None:
    check_equal(TABLE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("│ yes │\n│ live", "│ NO  │\n│ live"),
        ("│      3 │          0 │", "│      3 │      2e-06 │"),
        ("│ live    │", "│ chained │"),
        ("against the whole model (measured)", ""),
    ],
)
def test_what_differs_or_is_missing_is_found(old: str, new: str) -> None:
    assert old in TABLE
    with pytest.raises(CheckFailed):
        check_equal(TABLE.replace(old, new))
