"""The router over a real plan, the uncut model behind it, with and without its edge server."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.integration.conftest import placement, three_servers
from tests.integration.router_stage import write_router
from tritier.deployment.deploy import deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.divider import WholeModel
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import gather_inputs, generate, infer, plan_from_placement

pytestmark = pytest.mark.integration


def test_a_plan_and_the_whole_model_give_the_same(espcn: LoadedModel, tmp_path: Path) -> None:
    spec = three_servers()
    graph = build_layer_graph(espcn.proto)
    layers = placement(espcn, {"conv1": "edge", "relu1": "edge"}, "device")
    plan = plan_from_placement(espcn, graph, layers, spec, "espcn")
    options = GenerateOptions(optimisation="disabled", with_whole=True)
    files, _ = generate(plan, espcn, options)
    folder = tmp_path / "repos"
    write_files(files, folder, force=False)
    lab = Lab(tmp_path / "lab")
    state = lab.up(spec, folder)
    try:
        repositories = Repositories.open(folder)
        addresses = find_addresses(repositories, spec, state)
        deploy(repositories, addresses)
        config = (folder / "device" / "espcn" / "config.pbtxt").read_text()
        tensors = "\n".join(x for x in config.splitlines() if x.startswith(("input", "output")))
        batch = next(x for x in config.splitlines() if x.startswith("max_batch_size"))
        plans = {
            plan.id: {"model": "espcn", "servers": ["device", "edge"]},
            "whole": {"model": "espcn__whole", "servers": ["device"]},
        }
        parameters = {
            "plans": json.dumps(plans),
            "classes": json.dumps({"normal": {"plans": [plan.id, "whole"]}}),
            "entry": "device",
            "probe_interval_ms": "300",
        }
        write_router(folder / "device", "routed", f"{batch}\n{tensors}", parameters)
        client = triton.InferenceServerClient(addresses.urls["device"])
        client.load_model("routed")
        whole = WholeModel(espcn.path, "disabled")

        def ask(count: int, seed: int) -> None:
            for arrays in gather_inputs(plan, count, seed):
                expected = whole.run(arrays)["upscaled"]
                assert np.array_equal(infer(client, "routed", arrays)["upscaled"], expected)

        def computed(model: str) -> int:
            found = client.get_inference_statistics(model).model_stats[0]
            return int(found.inference_stats.success.count)

        warm = computed("espcn__whole")  # Triton counts the warm-up
        ask(5, 0)
        assert computed("espcn") >= 5
        assert computed("espcn__whole") == warm
        os.kill(state.servers[1].process.pid, signal.SIGKILL)
        ask(5, 1)  # none fails: the first goes to the fallback within its deadline
        assert computed("espcn__whole") == warm + 5
        client.close()
    finally:
        lab.down()
