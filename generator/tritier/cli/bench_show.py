"""A bench for people: its levels, and where the time goes on each server."""

from __future__ import annotations

from collections.abc import Sequence

from tritier.cli.output import say, show_table
from tritier.documents import BenchLevel, BenchResult, ModelShare

_KEPT_UP = {
    True: "are kept up with",
    False: "are NOT kept up with",
    None: "may be kept up with, too few were sent to tell",
}
_OWN_SAYS = {True: "", False: " DIFFERS", None: " (few)"}


def show_result(result: BenchResult) -> None:
    """Tables of the levels, of the servers at the best one, and what a search found."""
    load = "concurrency" if result.mode == "concurrency" else "requests/s"
    columns = ("batch", load, "infer/s", "mean ms", "95 % interval", "p50", "p90", "p95", "p99")
    show_table(
        f"{result.model} at {result.url}" + (f", plan {result.plan_id}" if result.plan_id else ""),
        (*columns, "requests", "stable", "own load"),
        [_row(level) for level in result.levels],
    )
    if not result.levels:
        return
    best = result.best()
    if best.servers:
        show_table(
            f"per request at batch {best.batch}, {load} {best.offered:g} (ms, by the servers' own "
            "count)",
            ("server", "model", "requests", "queue", "input", "compute", "output"),
            [_share(name, share) for name, shares in best.servers.items() for share in shares],
        )
    _tell_search(result)
    for check in result.sustained:
        say(
            f"batch {check.batch}: {check.offered:.2f} requests/s at random times, 70 % of the "
            f"highest throughput, {_KEPT_UP[check.agrees]}: p50 {check.p50_ms:.1f} ms, p95 "
            f"{check.p95_ms:.1f} ms of {check.requests} requests"
        )


def _row(level: BenchLevel) -> Sequence[object]:
    check = level.check
    own = "-"
    if check is not None:
        own = f"{check.difference:.1%}{_OWN_SAYS[check.agrees]}"
    return (
        level.batch,
        f"{level.offered:g}",
        f"{level.infer_per_s:.2f}",
        f"{level.mean_ms:.1f}",
        f"{level.low_ms:.1f} to {level.high_ms:.1f}",
        *(f"{level.quantile_ms(percent):.1f}" for percent in (50, 90, 95, 99)),
        level.requests,
        ("yes" if level.stable else "NO")
        + ("" if level.limit_kept is not False else ", limit NOT kept"),
        own,
    )


def _share(server: str, share: ModelShare) -> Sequence[object]:
    return (
        server,
        share.model,
        share.requests,
        *(
            f"{value:.2f}"
            for value in (
                share.queue_ms,
                share.compute_input_ms,
                share.compute_infer_ms,
                share.compute_output_ms,
            )
        ),
    )


def _tell_search(result: BenchResult) -> None:
    search = result.search
    if search is None:
        return
    what = "concurrency" if result.mode == "concurrency" else "requests/s"
    for item in search.found:
        limit = f"p{search.percentile} under {search.limit_ms:g} ms"
        if item.offered is None:
            say(f"batch {item.batch}: no load from {search.lowest:g} on keeps {limit}")
            continue
        more = "" if item.bounded_by == "limit" else "; higher ones were not asked for"
        more += "; it was NOT stable" if item.stable is False else ""
        say(
            f"batch {item.batch}: {what} {item.offered:g} is the highest that keeps {limit}: "
            f"{item.infer_per_s:.2f} infer/s at {item.latency_ms:.1f} ms{more}"
        )
