"""Documents survive their files, as JSON and as YAML."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tritier.documents import Assignment, ServersSpec

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)
POSITIVE = st.floats(min_value=1e-6, max_value=1e9) | st.integers(1, 10**9)
# Without surrogates and without what YAML's own writer can't write as it is.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@st.composite
def server_files(draw: st.DrawFn) -> dict[str, Any]:
    """Plain data of a servers file; optional keys are there or not."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    entry = draw(st.sampled_from(names))
    servers = [
        {
            "name": name,
            "tier": draw(st.sampled_from(["device", "edge", "cloud"])),
            **({"entry": True} if name == entry else {}),
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "url": st.sampled_from(["localhost:8001", "[::1]:8001", "a-b.c:65535"]),
                        "execution_provider": st.sampled_from(["cpu", "openvino", "cuda"]),
                        "threads": st.integers(1, 1024),
                        "instances": st.integers(1, 64),
                        "slowdown": st.floats(1, 1000),
                        "memory_mib": POSITIVE,
                        "tx_other_power_watt": POSITIVE,
                    },
                )
            ),
        }
        for name in names
    ]
    pairs = [(k, h) for k in names for h in names if k != h]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=5)) if pairs else []
    links = [{"from": k, "to": h, "bandwidth_mib_s": draw(POSITIVE)} for k, h in chosen]
    return {"servers": servers, **({"links": links} if links else {})}


@settings(max_examples=examples(100))
@given(server_files())
def test_servers_survive_both_kinds_of_file(data: dict[str, Any]) -> None:
    spec = ServersSpec.from_data(data)
    assert ServersSpec.from_data(json.loads(spec.to_json())) == spec
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "servers.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        assert ServersSpec.load(path) == spec


@settings(max_examples=examples(100))
@given(st.dictionaries(TEXTS, TEXTS, max_size=5), st.none() | TEXTS)
def test_assignments_survive_their_file(layers: dict[str, str], default: str | None) -> None:
    assignment = Assignment(layers=layers, default=default)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "assignment.json"
        path.write_text(assignment.to_json(), encoding="utf-8")
        assert Assignment.load(path) == assignment
