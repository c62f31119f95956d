"""Int8 formats compared through real Tritons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.integration.conftest import Bench
from tritier.cli import main
from tritier.deployment.client import TritonServer
from tritier.resources import example_dir
from tritier.workflow.formats import FORMATS

pytestmark = pytest.mark.integration


def test_formats_are_compared_on_a_server(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("edge",)
    spec = bench.spec.model_copy(
        update={
            "servers": tuple(
                server.model_copy(update={"url": bench.state.urls[server.name]})
                for server in bench.spec.servers
            )
        }
    )
    servers = tmp_path / "servers.json"
    servers.write_text(spec.to_json())
    draw = np.random.default_rng(0)
    data = []
    for index in range(2):
        path = tmp_path / f"{index}.npy"
        np.save(path, draw.random((1, 1, 224, 224), np.float32))
        data += ["--data", str(path)]
    chosen = [x for name in names for x in ("--server", name)]
    model = str(example_dir("super_resolution") / "espcn_x3.onnx")
    arguments = ["formats", model, *data, "--servers", str(servers), *chosen, "--all-convs"]
    with pytest.raises(SystemExit) as caught:
        main(["--workspace", str(tmp_path / "ws"), *arguments, "--runs", "3", "--warmup", "1",
              "--json"])  # fmt: skip
    shown = capsys.readouterr()
    assert int(str(caught.value.code)) == 0, shown.err
    found = json.loads(shown.out)
    assert [report["place"] for report in found] == list(names)
    for report in found:
        rows = {row["name"]: row for row in report["rows"]}
        assert list(rows)[:7] == ["float", *FORMATS]
        assert len(rows) == 9
        assert all(row["time"]["median_ms"] > 0 for row in rows.values())
        assert {row["time"]["n"] for row in rows.values()} == {3}
        assert rows["float"]["noise"][0]["real"]["value"] == 0
        for row in report["rows"][1:]:
            noise = row["noise"][0]
            assert 0 < noise["real"]["value"] < noise["signal"]["value"]
            assert noise["simulated"]["value"] > 0
        convs = rows["U8S8"]["layers"]
        assert rows["U8S8"]["int8_layers"] == convs
        assert len(convs) == 5
    for name in names:  # nothing stays
        with TritonServer(name, bench.state.urls[name]) as triton:
            left = [x for x in triton.index() if x.startswith(("tritier_timing", "tritier_agent"))]
            assert not left
