"""What Prometheus and Grafana are told: scrape targets, expressions, metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from tests.helpers.exported import servers, strict_yaml, tiers
from tritier.export.dashboard import DATASOURCE, ROWS, dashboard
from tritier.export.monitoring import JOB, monitoring_files
from tritier.resources import triton_dir

QUERIES = [query for panels in ROWS.values() for panel in panels for query, _ in panel.queries]
DATA: dict[str, Any] = dashboard(JOB)
PANELS: list[dict[str, Any]] = [panel for panel in DATA["panels"] if panel["type"] != "row"]
# Of Triton 2.51 (24.10) on a machine without GPU; test_export_servers.py asks a real one.
NV_METRICS = {
    "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_count",
    "nv_inference_exec_count", "nv_inference_request_duration_us", "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us", "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us", "nv_inference_pending_request_count",
    "nv_cpu_utilization", "nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes",
}  # fmt: skip


def own_metrics() -> set[str]:
    """Names of the metrics that the models in triton/ make, read out of their sources."""
    found: set[str] = set()
    for folder, prefix, suffix in (
        ("models/router", "tritier_router_", ""),
        ("models/remote", "tritier_", "_total"),
    ):
        for path in (triton_dir() / folder).glob("*.py"):
            names = re.findall(r"_(?:counter|gauge)\(\s*\"(\w+)\"", path.read_text())
            found |= {
                f"{prefix}{name}{suffix}" for name in names if not name.startswith("tritier_")
            }
    for path in triton_dir().rglob("*.py"):
        text = path.read_text()
        for kind, name in re.findall(r"telemetry\.(\w+)\(\s*\"(tritier_\w+)\"", text):
            found |= {f"{name}_bucket"} if kind == "histogram" else {name}
    return found


def test_all_servers_are_scraped(tmp_path: Path) -> None:
    found = tiers(tmp_path, servers({"b": {"name": "b"}}))
    config = strict_yaml(monitoring_files(found)["prometheus/prometheus.yml"])
    (job,) = config["scrape_configs"]
    rows = {tuple(row["targets"]): row["labels"] for row in job["static_configs"]}
    assert rows == {
        ("a:8002",): {"on": "a", "tier": "device"},
        ("b:8002",): {"on": "b", "tier": "edge"},
        ("c:8002",): {"on": "c", "tier": "cloud"},
    }
    # A timeout above the interval is refused by Prometheus.
    seconds = {key: int(text.removesuffix("s")) for key, text in config["global"].items()}
    assert seconds["scrape_timeout"] <= seconds["scrape_interval"]


def test_targets_do_not_hide_labels_of_metrics(tmp_path: Path) -> None:
    """A label that a metric has too would be renamed to exported_*, and no expression finds it."""
    config = strict_yaml(monitoring_files(tiers(tmp_path))["prometheus/prometheus.yml"])
    (job,) = config["scrape_configs"]
    own = {"server", "component", "plan", "model", "code", "class", "status", "kind", "run", "le",
           "reason", "version"}  # fmt: skip
    assert not own & {label for row in job["static_configs"] for label in row["labels"]}


@pytest.mark.parametrize("query", QUERIES)
def test_every_expression_is_promql(query: str) -> None:
    filled = query.replace("$__rate_interval", "1m").replace("$on", ".*").replace("$job", JOB)
    assert "$" not in filled
    promql_parser.parse(filled)


def test_what_is_no_promql_is_found() -> None:
    with pytest.raises(ValueError, match=r".+"):
        promql_parser.parse("sum by (on (rate(nv_inference_count[1m]))")


def test_every_metric_exists() -> None:
    named = set(re.findall(r"\b(?:nv|tritier)_\w+", " ".join(QUERIES)))
    own = own_metrics()
    assert {x for x in named if x.startswith("nv_")} <= NV_METRICS
    assert {x for x in named if x.startswith("tritier_")} <= own
    # All that the models tell is shown, but for what histograms have besides.
    assert {name for name in own if not name.startswith("tritier_agent")} <= named


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DATA["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DATA["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_are_complete() -> None:
    assert len(PANELS) == sum(len(panels) for panels in ROWS.values())
    for panel in PANELS:
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": DATASOURCE}
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == sorted(set(refs))
        assert all(t["expr"] and t["legendFormat"] for t in panel["targets"])
    used = set(re.findall(r"\$(\w+)", json.dumps([p["targets"] for p in PANELS])))
    known = {item["name"] for item in DATA["templating"]["list"]}
    assert used - {"__rate_interval"} == known


def test_legends_name_labels_that_the_expression_keeps() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            kept = set(re.findall(r"by \(([\w, ]+)\)", target["expr"])[:1])
            labels = {x.strip() for text in kept for x in text.split(",")} or {"on", "tier"}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, target


def test_provisioning_fits_together(tmp_path: Path) -> None:
    files = monitoring_files(tiers(tmp_path))
    (source,) = strict_yaml(files["grafana/provisioning/datasources/tritier.yaml"])["datasources"]
    assert (source["uid"], source["url"]) == (DATASOURCE, "http://prometheus:9090")
    assert json.loads(files["grafana/dashboards/tritier.json"]) == DATA
    (provider,) = strict_yaml(files["grafana/provisioning/dashboards/tritier.yaml"])["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
