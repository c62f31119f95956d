"""Plan switches under load: what they take, and whether any request notices.

Users on three real Tritons ask the super-resolution network one request after another and compare
each answer, bit for bit, with the whole model's. Meanwhile three families of plans take turns: one
with a tensor that goes from edge to cloud directly, one with one cut, one of two plans. Columns:

  took     from the call of `switch` to its end: loading, checking, switching, draining, unloading
  loaded   models of the new family that were not there; `unloaded` those of the old one
  right    requests that were answered right during the switch; `other` all that were not
  slowest  the longest of them, beside the median of all

Usage:

    python -m benchmarks.switches [--switches 20] [--users 4] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.helpers.families import family_folder
from tests.integration.conftest import peer_plan, placement, three_servers
from tritier.deployment.access import connect
from tritier.deployment.deploy import find_addresses
from tritier.deployment.lab import Lab
from tritier.deployment.switch import SwitchOptions, switch
from tritier.divider import WholeModel
from tritier.documents import LabState
from tritier.errors import ServerError
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import Repositories
from tritier.resources import example_dir
from tritier.workflow import gather_inputs, infer, plan_from_placement
from tritier.workflow.live import LiveCheck

CUTS = ({"conv1": "edge", "relu1": "edge"}, {"conv2": "cloud", "relu2": "cloud"})


@dataclass(frozen=True)
class Row:
    """One switch."""

    switch: int
    took_s: float
    loaded: int
    unloaded: int
    right: int
    other: int
    slowest_ms: float
    warnings: int


class Load:
    """Users in threads; (when it ended, ms, whether it was right) of every request."""

    def __init__(self, url: str, model: LoadedModel, arrays: Any) -> None:
        self.done: list[tuple[float, float, bool]] = []
        self.faults: list[str] = []
        self._url, self._arrays = url, arrays
        self._expected = WholeModel(model.path, "disabled").run(arrays)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        """So many users."""
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """When their last request has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = connect(self._url)
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                found = infer(client, "espcn", self._arrays)
                right = all(np.array_equal(found[x], y) for x, y in self._expected.items())
                self.faults += [] if right else ["wrong answer"]
            except ServerError as error:
                right = False
                self.faults.append(str(error))
            ended = time.monotonic()
            self.done.append((ended, (ended - started) * 1e3, right))
        client.close()


def folders(model: LoadedModel, folder: Path) -> list[Repositories]:
    """Three families."""
    spec, graph = three_servers(), build_layer_graph(model.proto)
    first, second = (
        plan_from_placement(model, graph, placement(model, cut, "device"), spec, "espcn")
        for cut in CUTS
    )
    chosen = ([peer_plan(model, spec)], [first], [second, first])
    return [family_folder(model, plans, folder / str(i)) for i, plans in enumerate(chosen)]


def run(state: LabState, folder: Path, switches: int, users: int) -> tuple[list[Row], Load]:
    """Switch so often while so many users ask."""
    model = load_model(example_dir("super_resolution") / "espcn_x3.onnx")
    found = folders(model, folder)
    arrays = gather_inputs(found[0].plan, 1, 0)
    metrics = next(x.metrics_url for x in state.servers if x.name == "device")
    options = [SwitchOptions("always", LiveCheck(x, model, arrays), metrics) for x in found]
    addresses = find_addresses(found[0], three_servers(), state)
    switch(found[0], addresses, options[0])
    load = Load(addresses.urls["device"], model, arrays[0])
    load.start(users)
    rows = []
    try:
        for number in range(1, switches + 1):
            turn, started = number % len(found), time.monotonic()
            done = switch(found[turn], addresses, options[turn])
            during = [x for x in list(load.done) if x[0] >= started]
            right = sum(x[2] for x in during)
            slowest = max((x[1] for x in during), default=0.0)
            rows.append(
                Row(number, done.took_s, len(done.loaded), len(done.unloaded), right,
                    len(during) - right, slowest, len(done.warnings))
            )  # fmt: skip
            print(f"switch {number}: {done.took_s:.1f} s", *done.warnings, file=sys.stderr)
    finally:
        load.stop()
    return rows, load


def show(rows: list[Row], load: Load) -> None:
    """A row per switch, and all together."""
    table = Table(title="plan switches under load (measured)", title_justify="left")
    for name in ("switch", "took s", "loaded", "unloaded", "right", "other", "slowest ms"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.switch), f"{row.took_s:.1f}", str(row.loaded), str(row.unloaded),
            str(row.right), str(row.other), f"{row.slowest_ms:.0f}",
        )  # fmt: skip
    console = Console(width=100)
    console.print(table)
    took = [row.took_s for row in rows]
    times = [x[1] for x in load.done]
    console.print(
        f"{len(rows)} switches, median {statistics.median(took):.1f} s (least {min(took):.1f}, "
        f"most {max(took):.1f}); {len(load.done)} requests, median {statistics.median(times):.0f} "
        f"ms, {len(load.faults)} failed or wrong"
    )
    for fault in dict.fromkeys(load.faults):
        console.print(f"  {fault}")


def main() -> None:
    """Measure and print; exit code 1 if any request failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tritier-switches-") as scratch:
        folder = Path(scratch)
        lab = Lab(folder / "lab")
        try:
            state = lab.up(three_servers(), None)
            rows, load = run(state, folder, options.switches, options.users)
        finally:
            lab.down()
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "faults": load.faults}, indent=2))
    else:
        show(rows, load)
    sys.exit(1 if load.faults else 0)


if __name__ == "__main__":
    main()
