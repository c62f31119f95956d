"""What `tritier verify` has measured: rows for verification.json and tables."""

from __future__ import annotations

from tritier.cli.output import show_table
from tritier.divider import Difference
from tritier.workflow import Verdict

_COLUMNS = ["run", "optimisation", "output", "inputs", "max |diff|", "mean |diff|"]


def verdict_rows(verdict: Verdict) -> list[dict[str, object]]:
    """A row per output, as written to verification.json."""
    return [
        _row(verdict, difference)
        | {
            "allowed_absolute": verdict.tolerance.absolute,
            "allowed_relative": verdict.tolerance.relative,
            "allowed_noise": difference.slack,
            "ok": difference.ok,
        }
        for difference in verdict.differences
    ]


def noise_rows(verdict: Verdict) -> list[dict[str, object]]:
    """A row per output: how far quantized layers and coded wires take it from the original."""
    return [_row(verdict, difference) for difference in verdict.noise]


def _row(verdict: Verdict, difference: Difference) -> dict[str, object]:
    return {
        "run": verdict.where,
        "optimisation": verdict.tolerance.optimisation,
        "output": difference.output,
        "inputs": difference.samples,
        "max_abs_difference": difference.max_abs,
        "mean_abs_difference": difference.mean_abs,
    }


def show_verdicts(plan_id: str, rows: list[dict[str, object]]) -> None:
    """The rows as a table."""
    show_table(
        f"plan {plan_id} against the whole model (measured)",
        [*_COLUMNS, "allowed", "ok"],
        [(*_cells(row), _allowed_text(row), "yes" if row["ok"] else "NO") for row in rows],
    )


def show_noise(title: str, rows: list[dict[str, object]]) -> None:
    """The noise rows as a table; of a family they say which plan it is that was asked."""
    of_family = any("plan_id" in row for row in rows)
    show_table(
        f"noise of {title}: against the original model (measured)",
        ["plan", *_COLUMNS] if of_family else _COLUMNS,
        [((row["plan_id"],) if of_family else ()) + _cells(row) for row in rows],
    )


def _cells(row: dict[str, object]) -> tuple[object, ...]:
    return (
        row["run"],
        row["optimisation"],
        row["output"],
        row["inputs"],
        f"{row['max_abs_difference']:.3g}",
        f"{row['mean_abs_difference']:.3g}",
    )


def _allowed_text(row: dict[str, object]) -> str:
    noise = f" + {row['allowed_noise']:.2g} (noise)" if row["allowed_noise"] else ""
    return f"{row['allowed_absolute']:g} + {row['allowed_relative']:g} |whole|{noise}"
