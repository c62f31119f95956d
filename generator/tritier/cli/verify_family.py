"""`tritier verify` for a family of plans: each plan, the whole model, the router."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tritier.cli.output import progress, show_table
from tritier.divider import Arrays
from tritier.graph import LoadedModel
from tritier.repository import Repositories
from tritier.workflow.family_verify import (
    FamilyVerdict,
    verify_family_chained,
    verify_family_live,
)
from tritier.workflow.verify import Verdict

Row = dict[str, object]

_COLUMNS = ["asked", "plan", "run", "optimisation", "output", "inputs", "max |diff|", "ok"]


def verify_family(
    repositories: Repositories, model: LoadedModel, inputs: Sequence[Arrays], url: str | None
) -> list[FamilyVerdict]:
    """Every plan chained and, with the entry's address, live; then the router as each class."""
    with progress(f"comparing {len(inputs)} inputs") as report:
        found = verify_family_chained(repositories, model, inputs, report)
        if url is not None:
            found += verify_family_live(repositories, model, inputs, url, report)
    return found


def family_rows(found: FamilyVerdict, rows_of: Callable[[Verdict], list[Row]]) -> list[Row]:
    """Rows of a verdict as written to verification.json, with what was asked and what answered."""
    head: Row = {"asked": found.asked, "plan_id": found.plan_id}
    return [{**head, **row} for row in rows_of(found.verdict)]


def show_family(title: str, rows: Sequence[Row]) -> None:
    """The rows as a table."""
    show_table(
        f"{title} against the whole model (measured)",
        _COLUMNS,
        [
            (
                row["asked"],
                row["plan_id"],
                row["run"],
                row["optimisation"],
                row["output"],
                row["inputs"],
                f"{row['max_abs_difference']:.3g}",
                "yes" if row["ok"] else "NO",
            )
            for row in rows
        ],
    )
