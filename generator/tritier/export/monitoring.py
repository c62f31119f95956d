"""Prometheus, which scrapes every server of a plan, and Grafana with a dashboard."""

from __future__ import annotations

import json
from typing import Any

from tritier.export.dashboard import DATASOURCE, dashboard
from tritier.export.tiers import Tiers
from tritier.export.yaml_text import yaml_text

PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
GRAFANA_IMAGE = "grafana/grafana:12.1.0"
# The file with the password of Grafana's user `admin`.
GRAFANA_SECRET = "grafana_password"  # noqa: S105 - the name of a file
JOB = "tritier"
_SCRAPE_INTERVAL = "5s"
_DASHBOARDS = "/var/lib/grafana/dashboards"


def monitoring_files(tiers: Tiers) -> dict[str, str]:
    """Relative path -> content of all that Prometheus and Grafana read."""
    header = "Written by `tritier export`."
    return {
        "prometheus/prometheus.yml": yaml_text(header, prometheus_config(tiers)),
        "grafana/provisioning/datasources/tritier.yaml": yaml_text(header, _datasources()),
        "grafana/provisioning/dashboards/tritier.yaml": yaml_text(header, _providers()),
        "grafana/dashboards/tritier.json": json.dumps(dashboard(JOB), indent=2) + "\n",
    }


def prometheus_config(tiers: Tiers) -> dict[str, Any]:
    """One target per server. The label `on` says which: `server` is taken by Tritier's own metrics,
    for the server that is called."""
    targets = [
        {
            "targets": [f"{tier.name}:{tier.ports.metrics}"],
            "labels": {"on": tier.server, "tier": tier.label},
        }
        for tier in tiers.tiers
    ]
    job = {"job_name": JOB, "metrics_path": "/metrics", "static_configs": targets}
    return {
        "global": {"scrape_interval": _SCRAPE_INTERVAL, "scrape_timeout": "4s"},
        "scrape_configs": [job],
    }


def monitoring_services() -> dict[str, Any]:
    """Started with the profile `monitoring`, published at loopback. Only Prometheus reaches the
    servers."""
    common = {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "profiles": ["monitoring"],
        "restart": "unless-stopped",
    }
    prometheus = {
        "image": f"${{PROMETHEUS_IMAGE:-{PROMETHEUS_IMAGE}}}",
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=7d",
        ],
        "volumes": [
            "./prometheus/prometheus.yml:/etc/prometheus/prometheus.yml:ro",
            "prometheus:/prometheus",
        ],
        "ports": ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"],
        "networks": ["plane", "monitoring"],
        **common,
    }
    grafana = {
        "image": f"${{GRAFANA_IMAGE:-{GRAFANA_IMAGE}}}",
        # Who owns the file with the password; Grafana's own files belong to group 0.
        "user": "${TRITIER_UID:-1000}:0",
        "environment": {
            "GF_SECURITY_ADMIN_PASSWORD__FILE": f"/run/secrets/{GRAFANA_SECRET}",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_USERS_ALLOW_SIGN_UP": "false",
        },
        "volumes": [
            "./grafana/provisioning:/etc/grafana/provisioning:ro",
            f"./grafana/dashboards:{_DASHBOARDS}:ro",
            "grafana:/var/lib/grafana",
        ],
        "ports": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
        "networks": ["monitoring"],
        "depends_on": {"prometheus": {"condition": "service_started"}},
        "secrets": [GRAFANA_SECRET],
        **common,
    }
    return {"prometheus": prometheus, "grafana": grafana}


def _datasources() -> dict[str, Any]:
    source = {
        "name": "Prometheus",
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": "http://prometheus:9090",
        "isDefault": True,
        "editable": False,
        "jsonData": {"timeInterval": _SCRAPE_INTERVAL},
    }
    return {"apiVersion": 1, "datasources": [source]}


def _providers() -> dict[str, Any]:
    provider = {
        "name": "tritier",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": _DASHBOARDS},
    }
    return {"apiVersion": 1, "providers": [provider]}
