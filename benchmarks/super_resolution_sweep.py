"""The sweep of the super-resolution report: `tritier bench` over batches and concurrencies.

The shipped super-resolution network is served on this machine without link emulation, each
component with one instance of one thread:

  whole   on one Triton
  split   in two components on two Tritons, cut where the fewest bytes cross: the entry has the
          cheap end, the other Triton the convolutions
  balanced  the same, cut so that both have about the same FLOPs

All are swept with perf_analyzer at batch 1 and 8 and concurrency 1, 3, 5, 7, 9, 11, 13 and 16,
until every level is stable: those that are not, with windows that grew to their limit, are
measured again. Usage:

    python -m benchmarks.super_resolution_sweep -o results/super_resolution [--report FILE]

Finished levels in the folder are not measured again. `--report` puts tables, conclusions and
pictures into a Markdown file, between its marks; with `--only-report` nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.kept import Kept, environment, tell
from benchmarks.lab_runs import running, scratch_of
from benchmarks.record import record
from benchmarks.serving_cuts import balanced, cuts_of, lightest, two_parts
from benchmarks.sweep_report import conclusions, table, write_plots
from tritier.documents import BenchResult, ServersSpec
from tritier.files import write_file
from tritier.graph import build_layer_graph, load_model, profile_model
from tritier.resources import example_dir

KINDS = ("whole", "split", "balanced")


@dataclass(frozen=True)
class Amount:
    """Loads, batches, and how long a level is measured; see `tritier bench --help`."""

    concurrency: str = "1,3,5,7,9,11,13,16"
    batch: str = "1,8"
    requests: int = 40
    max_requests: int = 320
    check_s: float = 5.0
    attempts: int = 3


QUICK = Amount("1,3", "1,8", requests=10, max_requests=40, check_s=2.0, attempts=1)


def main() -> int:
    """Measure and write the report; exit code 1 if a level is unstable."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("results/super_resolution"))
    parser.add_argument("--quick", action="store_true", help="few levels, for a try")
    parser.add_argument("--report", type=Path, help="Markdown file to fill")
    parser.add_argument("--only-report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    amount = QUICK if options.quick else Amount()
    kept = Kept(options.output, asdict(amount))
    if not options.only_report:
        kept.once("environment", environment)
        _measure(kept, amount)
    results = {
        kind: BenchResult.load(kept.folder / kind / "bench.json")
        for kind in KINDS
        if (kept.folder / kind / "bench.json").is_file()
    }
    dropped = {kind: kept.get(f"dropped_{kind}") or [] for kind in KINDS}
    text = table(results) + "\n" + conclusions(results, dropped)
    kept.write("table.md", text)
    write_plots(results, kept.folder)
    kept.write_result(
        {
            "environment": kept.get("environment"),
            "sweeps": {k: json.loads(v.to_json()) for k, v in results.items()},
        }
    )
    if options.report:
        pictures = {
            "Throughput against concurrency, by batch": kept.folder / "throughput.png",
            "Latency against concurrency, by batch": kept.folder / "latency.png",
        }
        record(options.report, text, pictures, kept.get("environment"))
    sys.stdout.write(text)
    levels = [level for result in results.values() for level in result.levels]
    unstable = [level.key for level in levels if not level.stable]
    if unstable:
        sys.stderr.write(f"broken: unstable levels (batch, concurrency): {unstable}\n")
    return 1 if unstable else 0


def _measure(kept: Kept, amount: Amount) -> None:
    spec = ServersSpec.from_data(
        {
            "servers": [
                {"name": "device", "tier": "device", "entry": True},
                {"name": "edge", "tier": "edge"},
            ]
        }
    )
    model = load_model(example_dir("super_resolution") / "espcn_x3.onnx")
    graph = build_layer_graph(model.proto)
    cuts = cuts_of(profile_model(model, {"batch": 1}), graph)
    last = len(graph.layers)
    plans = {
        "whole": two_parts(model, graph, spec, last, ("device", "device"), "espcn_x3_whole"),
    }
    for kind, cut in (("split", lightest(cuts)), ("balanced", balanced(cuts))):
        name = f"espcn_x3_{kind}"
        plans[kind] = two_parts(model, graph, spec, cut.after, ("edge", "device"), name)
    with scratch_of(kept.folder) as scratch:
        for kind, plan in plans.items():
            for attempt in range(amount.attempts):
                file = kept.folder / kind / "bench.json"
                if attempt:
                    unstable = _forget_unstable(file)
                    if not unstable:
                        break
                    kept.put(f"dropped_{kind}", (kept.get(f"dropped_{kind}") or []) + unstable)
                tell(f"{kind}: attempt {attempt + 1}")
                # One at a time: what is idle takes memory and a little time, too.
                with running(spec, scratch) as stage, stage.loaded([plan], model):
                    servers = kept.folder / kind / "servers.yaml"
                    urls = [
                        {**s.model_dump(mode="json", exclude_none=True), "url": stage.urls[s.name]}
                        for s in spec.servers
                    ]
                    write_file(servers, json.dumps({"servers": urls}, indent=1))
                    _bench(plan.model.name, servers, file.parent, amount)


def _forget_unstable(file: Path) -> list[str]:
    """Drop unstable levels, so that they are measured again; which these were, and why."""
    result = BenchResult.load(file)
    stable = tuple(level for level in result.levels if level.stable)
    dropped = [level for level in result.levels if not level.stable]
    if dropped:
        write_file(file, result.model_copy(update={"levels": stable}).to_json())
    return [f"batch {x.batch} at {x.offered:g} ({x.unstable_because})" for x in dropped]


def _bench(model: str, servers: Path, folder: Path, amount: Amount) -> None:
    command = [sys.executable, "-m", "tritier", "bench", model, "--servers", str(servers)]
    command += ["--concurrency", amount.concurrency, "--batch", amount.batch]
    command += ["--requests", str(amount.requests), "--max-requests", str(amount.max_requests)]
    command += ["--check-s", str(amount.check_s), "-o", str(folder)]
    ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    # Levels that are unstable or disagree with the check are kept, and marked: that is no failure.
    if ended.returncode:
        raise SystemExit(f"`{' '.join(command[2:])}` ended with {ended.returncode}")


if __name__ == "__main__":
    sys.exit(main())
