"""`tritier bench` with the real perf_analyzer on a plan over two real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.small import write_small
from tests.integration.conftest import Bench, placement
from tritier.bench.fetch import provide
from tritier.bench.perf_analyzer import USUAL, find_program
from tritier.bench.prepare import BenchRequest, prepare
from tritier.documents import BenchResult
from tritier.errors import InputError, ServerError
from tritier.graph import build_layer_graph
from tritier.workflow import plan_from_placement

pytestmark = pytest.mark.integration
_ROOT = Path(__file__).resolve().parents[2]
# Few requests, and so far apart that noise of this machine does not matter.
_QUICK = ("--requests", "10", "--max-requests", "10", "--max-windows", "3", "--check-s", "1")


@dataclass(frozen=True)
class Deployed:
    """A plan that is loaded, the servers file with addresses, and a folder to work in."""

    folder: Path
    servers: Path
    urls: dict[str, str]
    plan_id: str
    perf_analyzer: Path

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`tritier bench small ...` in the folder."""
        command = [sys.executable, "-m", "tritier", "bench", "small", *_QUICK]
        command += ["--perf-analyzer", str(self.perf_analyzer), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done


@pytest.fixture(scope="module")
def perf_analyzer() -> Path:
    """The real program; fetched where it is not."""
    path = _ROOT / USUAL
    if not path.is_file():
        provide(path.parent, sys.executable, force=False)
    return path


@pytest.fixture(scope="module")
def deployed(
    bench: Bench, perf_analyzer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("bench")
    model = write_small(folder / "small.onnx", side=8)
    graph = build_layer_graph(model.proto)
    places = placement(model, {"conv2": "edge", "relu2": "edge"}, "device")
    plan = plan_from_placement(model, graph, places, bench.spec, "small")
    with bench.deployed(plan, model) as (_, addresses):
        urls = {name: str(addresses.urls[name]) for name in ("device", "edge")}
        spec = [{"name": n, "tier": n, "url": u, "entry": n == "device"} for n, u in urls.items()]
        (folder / "servers.json").write_text(json.dumps({"servers": spec}))
        yield Deployed(folder, folder / "servers.json", urls, plan.id, perf_analyzer)


def test_a_sweep_shows_the_steps_of_all_servers(deployed: Deployed) -> None:
    arguments = ("--servers", "servers.json", "--stability", "300", "-o", "sweep")
    done = deployed.run(*arguments, "--concurrency", "1:2")
    assert "--concurrency-range 2:2" in done.stderr, "the exact command line"
    file = deployed.folder / "sweep" / "bench.json"
    result = BenchResult.load(file)
    assert result.plan_id == deployed.plan_id
    assert [level.key for level in result.levels] == [(1, 1.0), (1, 2.0)]
    for level in result.levels:
        assert level.stable
        assert level.times_from == "timestamps"
        assert level.requests >= 30
        edge = {share.model: share for share in level.servers["edge"]}
        (component,) = [share for name, share in edge.items() if deployed.plan_id in name]
        assert component.requests >= level.requests, "a step on another Triton is seen"
        assert component.compute_infer_ms > 0
        assert any("call" in share.model for share in level.composing)
        assert level.check is not None
        assert level.check.failures == 0
        names = {Path(path).name for path in level.raw}
        assert {"log.txt", "level.csv", "profile.json"} <= names
        assert all((file.parent / path).is_file() for path in level.raw)
    assert result.sustained[0].arrivals == "poisson"
    assert set(result.environment.servers) == {"device", "edge"}
    # Again, with one level more: what is there is not measured again.
    more = deployed.run(*arguments, "--concurrency", "1:3")
    assert "2 levels are in" in more.stderr
    after = BenchResult.load(file)
    assert after.levels[:2] == result.levels
    assert after.levels[2].offered == 3
    refused = deployed.run(*arguments, "--percentile", "50", code=3)
    assert "percentile was 95 and is 50" in refused.stderr


def test_an_unstable_level_is_kept_with_its_figures(deployed: Deployed) -> None:
    done = deployed.run(
        "--servers", "servers.json", "--stability", "0.1", "-o", "unstable.json", "--json"
    )
    (level,) = BenchResult.from_data(json.loads(done.stdout)).levels
    assert not level.stable
    assert "differ by" in str(level.unstable_because)
    assert level.runs == 2
    assert level.requests >= 30
    assert any("unstable" in line for line in done.stderr.splitlines())
    assert (deployed.folder / "unstable_raw" / "b1_c1" / "run2" / "level.csv").is_file()


def test_rates_and_a_search_under_a_limit(deployed: Deployed) -> None:
    quick = ("--servers", "servers.json", "--stability", "1000", "--check-s", "0")
    rates = deployed.run(*quick, "--request-rate", "10", "--arrivals", "poisson", "-o", "rate")
    assert "--request-distribution poisson" in rates.stderr
    limited = ("--concurrency", "1:3", "--latency-limit-ms", "60000", "--search", "-o", "slo")
    done = deployed.run(*quick, *limited)
    result = BenchResult.load(deployed.folder / "slo" / "bench.json")
    assert result.search is not None
    assert result.search.found[0].offered == 3
    assert [level.offered for level in result.levels] == [1, 3], "the middle is not needed"
    assert "the highest that keeps p95 under 60000 ms" in done.stderr


def test_what_can_not_be_measured_is_refused(deployed: Deployed) -> None:
    wrong = deployed.run("--servers", "servers.json", "--batch", "2", code=2)
    assert "single requests only" in wrong.stderr
    nothing = deployed.run("--url", "127.0.0.1:1", code=4)
    assert "can't be asked" in nothing.stderr
    unknown = _request(deployed, model="smal")
    with pytest.raises(InputError, match="did you mean 'small'"), ExitStack() as closing:
        prepare(unknown, closing)
    # The address of a server that does not answer is no reason to leave out the others.
    partly = _request(deployed, urls={**deployed.urls, "gone": "127.0.0.1:1"})
    with ExitStack() as closing:
        warnings = prepare(partly, closing).result.warnings
    assert any("gone" in warning for warning in warnings)
    with pytest.raises(ServerError), ExitStack() as closing:
        prepare(_request(deployed, urls={"gone": "127.0.0.1:1"}), closing)


def test_a_dry_run_prints_commands_and_writes_nothing(deployed: Deployed) -> None:
    before = sorted(deployed.folder.iterdir())
    done = deployed.run("--servers", "servers.json", "--concurrency", "1:4", "--dry-run")
    assert len(done.stdout.splitlines()) == 4
    assert sorted(deployed.folder.iterdir()) == before


def _request(deployed: Deployed, **changes: object) -> BenchRequest:
    given: dict[str, object] = {
        "model": "small", "url": deployed.urls["device"], "urls": deployed.urls,
        "program": find_program(deployed.perf_analyzer), "file": deployed.folder / "x.json",
    }  # fmt: skip
    return BenchRequest(**{**given, **changes})  # type: ignore[arg-type]
