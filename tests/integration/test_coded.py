"""Quantized layers and coded wires on several Tritons: int8 really crosses, and no more is lost
than what the plan says."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
import skimage.data
import tritonclient.grpc as triton

from tests.integration.conftest import Bench, peer_plan
from tritier.calibration import calibrate
from tritier.divider import Arrays
from tritier.documents import Codec, Plan, wire_up
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import GenerateOptions
from tritier.workflow import code_plan, verify_live

pytestmark = pytest.mark.integration


def _photographs() -> list[Arrays]:
    found = []
    for image in (skimage.data.astronaut(), skimage.data.coffee()):  # type: ignore[no-untyped-call]
        grey = skimage.color.rgb2gray(image)[:224, :224].astype(np.float32)
        found.append({"luminance": grey[np.newaxis, np.newaxis]})
    return found


def _coded(bench: Bench, espcn: LoadedModel, codec: Codec | None, layers: tuple[str, ...]) -> Plan:
    graph = build_layer_graph(espcn.proto)
    ranges = calibrate(espcn, _photographs())
    return code_plan(peer_plan(espcn, bench.spec), espcn, graph, layers, ranges, codec)


@pytest.mark.parametrize(
    ("codec", "layers"),
    [("fp16", ()), ("int8", ()), (None, ("conv2", "conv3")), ("int8", ("conv2", "conv3"))],
    ids=["fp16", "int8", "quantized layers", "quantized layers and int8"],
)
def test_live_equals_the_uncut_model_with_the_same_coding(
    bench: Bench, espcn: LoadedModel, codec: Codec | None, layers: tuple[str, ...]
) -> None:
    plan = _coded(bench, espcn, codec, layers)
    assert {wire.codec for wire in plan.wires} - {"as_is"} == {codec or "int8"}
    with bench.deployed(plan, espcn, GenerateOptions(optimisation="disabled")) as (repos, at):
        exact = repos.manifest.tolerances[0]
        verdict = verify_live(repos, espcn, _photographs(), exact, at.urls["device"])
        assert exact.absolute == exact.relative == exact.share_of_noise == 0
        assert [d.max_abs for d in verdict.differences] == [0.0]
        # The control: the plan is not the original model.
        assert [0 < d.max_abs < 0.2 for d in verdict.noise] == [True]
        assert repos.manifest.batching is not None
        assert repos.manifest.batching.max_batch_size == 16


def test_the_served_level_stays_within_its_tolerance(bench: Bench, espcn: LoadedModel) -> None:
    plan = _coded(bench, espcn, "int8", ("conv2", "conv3"))
    with bench.deployed(plan, espcn) as (repos, at):
        served = repos.manifest.tolerances[-1]
        assert (served.optimisation, served.share_of_noise) == ("all", 1.0)
        verdict = verify_live(repos, espcn, _photographs(), served, at.urls["device"])
        assert verdict.ok


def test_components_take_and_give_int8(bench: Bench, espcn: LoadedModel) -> None:
    plan = _coded(bench, espcn, "int8", ())
    with bench.deployed(plan, espcn) as (repos, at):
        for component in wire_up(plan).components:
            client = triton.InferenceServerClient(at.urls[component.server])
            name = f"espcn__{plan.id}__{component.id}"
            metadata = client.get_model_metadata(name)
            client.close()
            types = {t.datatype for t in (*metadata.inputs, *metadata.outputs)}
            # On the device a component codes the input, another decodes the output.
            expected = {"INT8"} if component.server != "device" else {"INT8", "FP32"}
            assert types <= expected, name
        sizes = {wire.name: wire.bytes for wire in repos.manifest.wires}
        assert sizes["luminance"] == 224 * 224  # one byte each
