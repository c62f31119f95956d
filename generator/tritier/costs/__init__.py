"""What inference costs and how much machines can do: pure functions of measured or predicted
figures and a price book (docs/costs.md)."""

from tritier.costs.batch_program import Task, plan_batches
from tritier.costs.batches import Kind, Option, kind_of, largest_mini_batch, without_spread
from tritier.costs.book import Prices, starter_book
from tritier.costs.capacity import capacity_rows, choices
from tritier.costs.inference import cost_at_rate, machine_cost, machines_for
from tritier.costs.runs import run_of_timing, runs_of_bench
from tritier.costs.serverless import serverless_at_rate, serverless_cost, usd_per_request
from tritier.costs.split import PlanPrices, PlanUse, plan_cost, use_of_comparison, use_of_report
from tritier.costs.streams import least_sharers, stream_costs, usd_per_stream

__all__ = [
    "Kind",
    "Option",
    "PlanPrices",
    "PlanUse",
    "Prices",
    "Task",
    "capacity_rows",
    "choices",
    "cost_at_rate",
    "kind_of",
    "largest_mini_batch",
    "least_sharers",
    "machine_cost",
    "machines_for",
    "plan_batches",
    "plan_cost",
    "run_of_timing",
    "runs_of_bench",
    "serverless_at_rate",
    "serverless_cost",
    "starter_book",
    "stream_costs",
    "usd_per_request",
    "usd_per_stream",
    "use_of_comparison",
    "use_of_report",
    "without_spread",
]
