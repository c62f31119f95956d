"""The Grafana dashboard: what Triton measures on each server, and what Tritier's own models do
between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Id of the provisioned data source.
DATASOURCE = "tritier-prometheus"
_SCHEMA_VERSION = 41
_WIDTH, _HEIGHT = 8, 8  # of a panel, on Grafana's grid of 24 columns
# Which servers are looked at, chosen in the dashboard.
_ON = 'on=~"$on"'
_RANGE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """A time series: PromQL expressions, each with the template of its legend; `unit` is one of
    Grafana's."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    description: str = ""


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{_ON}}}{_RANGE}))"


def _mean_ms(metric: str, by: str = "on, model") -> str:
    """Mean time of a request: microseconds over requests."""
    return f"{_rate(metric, by)} / {_rate('nv_inference_request_success', by)} / 1000"


def _quantile_ms(metric: str, by: str, share: float = 0.95) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', f'le, {by}')})"


_MODEL, _CALL = "{{on}} {{model}}", "{{on}} to {{server}}"
# Row -> its panels.
ROWS: dict[str, tuple[Panel, ...]] = {
    "Servers": (
        Panel(
            "Scraped", "bool_yes_no", (('up{job="$job", on=~"$on"}', "{{on}} ({{tier}})"),), "stat"
        ),
        Panel("Processor", "percentunit", ((f"nv_cpu_utilization{{{_ON}}}", "{{on}}"),),
              description="Of the whole machine, as Triton reads it."),
        Panel("Memory used", "bytes", ((f"nv_cpu_memory_used_bytes{{{_ON}}}", "{{on}}"),),
              description="Of the whole machine, as Triton reads it."),
    ),
    "Models": (
        Panel("Requests answered", "reqps",
              ((_rate("nv_inference_request_success", "on, model"), _MODEL),)),
        Panel("Requests failed", "reqps",
              ((_rate("nv_inference_request_failure", "on, model, reason"),
                f"{_MODEL} {{{{reason}}}}"),)),
        Panel("Requests that wait", "short",
              ((f"sum by (on, model) (nv_inference_pending_request_count{{{_ON}}})", _MODEL),)),
        Panel("Mean time of a request", "ms",
              ((_mean_ms("nv_inference_request_duration_us"), _MODEL),),
              description="A proxy counts only until it has sent the call; see Calls."),
        Panel("Mean time in queues", "ms",
              ((_mean_ms("nv_inference_queue_duration_us"), _MODEL),)),
        Panel("Mean time computing", "ms",
              ((_mean_ms("nv_inference_compute_infer_duration_us"), _MODEL),)),
        Panel("Mean batch", "short",
              ((f"{_rate('nv_inference_count', 'on, model')} / "
                f"{_rate('nv_inference_exec_count', 'on, model')}", _MODEL),)),
    ),
    "Calls between servers": (
        Panel("Calls", "reqps", ((_rate("tritier_calls_total", "on, server"), _CALL),)),
        Panel("Time of calls, 95th percentile", "ms",
              ((_quantile_ms("tritier_call_ms", "on, server"), _CALL),)),
        Panel("Calls in flight", "short",
              ((f"sum by (on, server) (tritier_calls_in_flight{{{_ON}}})", _CALL),)),
        Panel("Failed and repeated", "reqps",
              ((_rate("tritier_call_failures_total", "on, server, code"), f"{_CALL} {{{{code}}}}"),
               (_rate("tritier_call_retries_total", "on, server"), f"{_CALL} sent again"))),
        Panel("Sent", "Bps", ((_rate("tritier_sent_bytes_total", "on, server"), _CALL),)),
        Panel("Received", "Bps", ((_rate("tritier_received_bytes_total", "on, server"), _CALL),)),
    ),
    "Mailboxes": (
        Panel("Waiting tensors", "bytes",
              ((f"sum by (on) (tritier_mailbox_bytes{{{_ON}}})", "{{on}}"),)),
        Panel("Time of waiting, 95th percentile", "ms",
              ((_quantile_ms("tritier_mailbox_wait_ms", "on"), "{{on}}"),)),
        Panel("Keys and waiting takes", "short",
              ((f"sum by (on) (tritier_mailbox_keys{{{_ON}}})", "{{on}} keys"),
               (f"sum by (on) (tritier_mailbox_waiting{{{_ON}}})", "{{on}} waiting"))),
        Panel("Refused and failed", "reqps",
              ((_rate("tritier_mailbox_refused_total", "on"), "{{on}} refused"),
               (_rate("tritier_mailbox_failed_total", "on"), "{{on}} failed"))),
    ),
    "Router": (
        Panel("Requests", "reqps",
              ((_rate("tritier_router_requests_total", "class, plan, status"),
                "{{class}} by {{plan}} {{status}}"),)),
        Panel("Refused for overload", "reqps",
              ((_rate("tritier_router_rejected_total", "class"), "{{class}}"),)),
        Panel("In flight", "short",
              ((f"sum by (model) (tritier_router_in_flight{{{_ON}}})", "{{model}}"),
               (f"sum by (model) (tritier_router_bls_calls{{{_ON}}})", "{{model}} within Triton"))),
        Panel("Attempts that failed", "reqps",
              ((_rate("tritier_router_failures_total", "plan, kind"), "{{plan}} {{kind}}"),)),
        Panel("Retries and hedges", "reqps",
              ((_rate("tritier_router_retries_total", "plan"), "{{plan}} retries"),
               (_rate("tritier_router_hedges_total", "plan"), "{{plan}} hedges"))),
        Panel("Plans out of use", "short",
              ((f"max by (plan) (tritier_router_ejected{{{_ON}}})", "{{plan}}"),)),
    ),
}  # fmt: skip


def dashboard(job: str) -> dict[str, Any]:
    """The dashboard as Grafana imports it. `job` is the scrape job of the servers."""
    return {
        "uid": "tritier",
        "title": "Tritier",
        "tags": ["tritier", "triton"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_constant(job), _servers()]},
        "annotations": {"list": []},
        "panels": _panels(),
    }


def _panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    y = 0
    for row, panels in ROWS.items():
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        head = {"type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": place}
        found.append({"id": len(found) + 1, **head})
        y += 1
        for index, panel in enumerate(panels):
            x = index % (24 // _WIDTH) * _WIDTH
            at = {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y + index // (24 // _WIDTH) * _HEIGHT}
            found.append({"id": len(found) + 1, **_panel(panel), "gridPos": at})
        y += -(-len(panels) // (24 // _WIDTH)) * _HEIGHT
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _source(),
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {},
        "targets": _targets(panel.queries),
    }


def _targets(queries: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "refId": chr(ord("A") + index),
            "datasource": _source(),
            "expr": expression,
            "legendFormat": legend,
        }
        for index, (expression, legend) in enumerate(queries)
    ]


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": DATASOURCE}


def _constant(job: str) -> dict[str, Any]:
    current = {"text": job, "value": job}
    return {"name": "job", "type": "constant", "hide": 2, "query": job, "current": current}


def _servers() -> dict[str, Any]:
    query = 'label_values(up{job="$job"}, on)'
    return {
        "name": "on",
        "label": "server",
        "type": "query",
        "datasource": _source(),
        "query": {"query": query, "refId": "servers"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
