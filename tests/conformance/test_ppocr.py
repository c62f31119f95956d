"""Trained models that read text from a photograph: the same boxes and the same text when split."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import ocr
from tests.helpers.coded import realised_proto
from tests.helpers.models import assert_same_bits
from tests.integration.conftest import random_plan, three_servers
from tritier.calibration import calibrate
from tritier.divider import Array, Chain, WholeModel, cut_model, realise
from tritier.documents import Codec, Optimisation, Plan, Ranges
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.workflow import code_plan

PATHS = {"text_det": ocr.DETECTION, "text_rec": ocr.RECOGNITION, "text_cls": ocr.DIRECTION}
SHAPES = {"text_det": (1, 3, 96, 160), "text_rec": (2, 3, 48, 160), "text_cls": (2, 3, 48, 192)}


@cache
def _model(path: Path) -> LoadedModel:
    return load_model(path)


@cache
def _detection_ranges() -> Ranges:
    pages = [ocr.detection_input(image, 320) for image in ocr.calibration_pages()]
    return calibrate(_model(ocr.DETECTION), [{"x": page} for page in pages])


def _plan(model: LoadedModel, seed: int, pieces: int, codec: Codec | None = None) -> Plan:
    plan = random_plan(model, three_servers(), seed, pieces)
    if codec is None:
        return plan
    return code_plan(plan, model, build_layer_graph(model.proto), (), _detection_ranges(), codec)


def _chain(model: LoadedModel, plan: Plan, level: Optimisation) -> ocr.Run:
    realised = realise(model.proto, build_layer_graph(model.proto), plan)
    subs = {sub.component: sub.data for sub in cut_model(realised)}
    chain = Chain(plan, subs, level)
    source, target = (plan.tensor(t).name for t in (*plan.inputs, *plan.outputs))
    return lambda array: chain.run({source: array})[target]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PATHS)
def test_parts_give_the_bits_of_the_whole(name: str, seed: int) -> None:
    model = _model(PATHS[name])
    plan = _plan(model, seed, 2 + seed)
    array = np.random.default_rng(seed).random(SHAPES[name], dtype=np.float32)
    source, target = (plan.tensor(t).name for t in (*plan.inputs, *plan.outputs))
    whole = WholeModel(model.path, "disabled").run({source: array})
    assert_same_bits(whole, {target: _chain(model, plan, "disabled")(array)})


@pytest.mark.parametrize("name", PATHS)
def test_the_same_text_is_read_where_it_was(name: str) -> None:
    image = ocr.page()
    boxes, texts = ocr.read(image)
    assert len(texts) == 7
    assert texts[0] == "Region-based segmentation"
    model = _model(PATHS[name])
    split = _chain(model, _plan(model, 1, 5), "all")
    calls: list[Array] = []

    def run(array: Array) -> Array:
        calls.append(array)
        return split(array)

    again, texts_again = ocr.read(image, **{name: run})
    assert calls, "the recogniser must have asked the split model"
    assert texts_again == texts
    np.testing.assert_array_equal(again, boxes)


@pytest.mark.parametrize(("codec", "pixels"), [("fp16", 0), ("int8", 2)])
def test_coded_wires_find_the_same_boxes(codec: Codec, pixels: int) -> None:
    image = ocr.page()
    model = _model(ocr.DETECTION)
    array = ocr.detection_input(image)
    expected = ocr.boxes_of(WholeModel(model.path, "all").run({"x": array})["fetch_name_0"], image)
    plan = _plan(model, 3, 3, codec)
    assert {wire.codec for wire in plan.wires} == {codec}
    found = ocr.boxes_of(_chain(model, plan, "all")(array), image)
    assert found.shape == expected.shape == (7, 4, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=pixels)


@pytest.mark.parametrize("codec", ["fp16", "int8"])
def test_coded_parts_give_the_bits_of_the_coded_whole(codec: Codec) -> None:
    model = _model(ocr.DETECTION)
    plan = _plan(model, 3, 5, codec)
    array = ocr.detection_input(ocr.page()[:, :96])
    whole = WholeModel(realised_proto(model, plan).SerializeToString(), "disabled")
    assert_same_bits(
        whole.run({"x": array}), {"fetch_name_0": _chain(model, plan, "disabled")(array)}
    )
