"""The drawings of the report: what they say, that they are safe, and that they are the same every
time."""

from __future__ import annotations

import importlib.util
import re
import struct
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal

import pytest

from tests.helpers.plans import SHA256, make_plan, plan_data
from tests.helpers.published import fixture
from tritier.documents import (
    LayerProfile,
    ModelProfile,
    Plan,
    PlanModel,
    ProfileTotals,
    TensorProfile,
)
from tritier.errors import InputError
from tritier.report.amounts import bytes_text, flops_text, ms_text
from tritier.report.component_graph import component_graph
from tritier.report.drawing import Drawing, asset
from tritier.report.layer_graph import layer_graph
from tritier.report.palette import theme_css
from tritier.report.scene import Box, Group, Scene
from tritier.report.scene_picture import scene_picture
from tritier.report.timeline import nice_step, timeline

EVIL = "</svg><script>alert('x')</script>&\"\x00\x1b\ud800"
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Stretch:
    """An entry of a timeline."""

    kind: Literal["compute", "send"]
    name: str
    place: tuple[str, ...]
    start_ms: float
    end_ms: float


# l0 on a makes two tensors, l1 on b and l2 on c read one of them, l3 on a reads both.
LINES = ("a: t0 -> t1 t2", "b: t1 -> t3", "c: t1 t2 -> t4", "a: t3 t4 -> t9")
FLOWS = (("n0", "generator", "l0"), ("n1", "l0", "l1 l2"), ("n2", "l0", "l2"),
         ("n3", "l1", "l3"), ("n4", "l2", "l3"), ("n9", "l3", "receiver"))  # fmt: skip
PREDICTED = (
    Stretch("compute", "c0", ("a",), 0, 10),
    Stretch("send", "t1", ("a", "b"), 10, 14),
    Stretch("send", "t1", ("a", "c"), 10, 15),
    Stretch("compute", "c1", ("b",), 14, 40),
)
MEASURED = tuple(Stretch(x.kind, x.name, x.place, x.start_ms, x.end_ms * 1.25) for x in PREDICTED)


def profile(rename: dict[str, str] | None = None) -> ModelProfile:
    new = rename or {}
    layers = [LayerProfile(name=new.get(name, name), op_type="Conv", flops=2_000_000,
                           weight_bytes=4096, output_bytes=8)
              for name in ("l0", "l1", "l2", "l3")]  # fmt: skip
    tensors = [
        TensorProfile(name=new.get(name, name), dtype="float32", shape=(2,), bytes=8,
                      source=new.get(source, source),
                      consumers=tuple(new.get(reader, reader) for reader in readers.split()))
        for name, source, readers in FLOWS
    ]  # fmt: skip
    totals = ProfileTotals(flops=8_000_000, known_flops=8_000_000, weight_bytes=16384, layers=4,
                           constant_nodes=0, dropped_nodes=0)  # fmt: skip
    return ModelProfile(model=PlanModel(name="m", sha256=SHA256), layers=tuple(layers),
                        tensors=tuple(tensors), totals=totals)  # fmt: skip


def plan(**changes: object) -> Plan:
    return Plan.from_data(plan_data(LINES) | changes)


def drawings(some: Plan | None = None, source: ModelProfile | None = None) -> list[Drawing]:
    some = some or plan()
    return [
        layer_graph(some, source or profile()),
        component_graph(some, source),
        timeline(some, PREDICTED, MEASURED),
    ]


def texts(drawing: Drawing) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawing.svg).iter(f"{SVG}text")]


def test_layers_tell_server_precision_and_figures() -> None:
    drawing = layer_graph(plan(quantized_layers=["l1"]), profile())
    rows = {row[0]: dict(zip(drawing.table.columns, row, strict=True))
            for row in drawing.table.rows}  # fmt: skip
    assert rows["l1"] == {"Layer": "l1", "Type": "Conv", "Server": "b", "Component": "c1",
                          "Precision": "int8", "Time": "", "FLOPs": "2.00 MFLOP",
                          "Weights": "4.00 KiB", "Output": "8 B"}  # fmt: skip
    assert rows["l0"]["Precision"] == "float"
    assert texts(drawing).count("int8") == 1
    # From a: to b, twice to c. To a: from b and from c. One line per pair of layers.
    assert drawing.svg.count('class="tt-edge tt-cross"') == 4
    assert "4 connections between servers" in drawing.caption


def test_a_plan_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no layer 'other' \(.*\)|has no layer 'other'"):
        layer_graph(plan(), profile({"l2": "other"}))


def test_components_carry_bytes_and_milliseconds() -> None:
    some = plan()
    drawing = component_graph(some, wire_ms={("t1", "a", "b"): 3.5}, component_ms={"c1": 12.0})
    assert "8 B · 3.50 ms" in texts(drawing)
    assert "2 tensors · 16 B" in texts(drawing)
    assert "12.0 ms" in texts(drawing)
    assert len(drawing.table.rows) == 7
    crossing = [row for row in drawing.table.rows if row[3]]
    assert len(crossing) == len(some.wires)
    assert "5 tensors cross a link, 40 B" in drawing.caption


def test_sizes_that_a_plan_leaves_open_come_from_the_profile() -> None:
    some = Plan.from_data(plan_data(LINES, shapes={"t1": ["batch", "width"]}))
    assert "size unknown" in texts(component_graph(some))
    assert "size unknown" not in texts(component_graph(some, profile()))


def test_a_plan_on_one_server_has_no_wires() -> None:
    drawing = component_graph(make_plan(("a: t0 -> t9",)))
    assert "nothing crosses a link" in drawing.caption
    assert "tt-cross" not in drawing.svg


def test_predicted_stands_above_measured() -> None:
    drawing = timeline(plan(), PREDICTED, MEASURED)
    tops: dict[str, float] = {}
    for group in ET.fromstring(drawing.svg).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is not None and box is not None and title.text:
            tops[title.text.partition("\n")[0]] = float(box.attrib["y"])
    for what in ("c0 (a)", "t1 (a → b)", "c1 (b)"):
        assert tops[f"{what}, predicted"] < tops[f"{what}, measured"]
    assert "20.0 % too low" in drawing.caption
    assert ("t1", "a → b", "10.0 ms", "14.0 ms", "10.0 ms", "17.5 ms") in drawing.table.rows


@pytest.mark.parametrize("entries", [(), PREDICTED, (Stretch("compute", "c0", ("a",), 0, 0),),
                                     (Stretch("compute", "c0", ("a",), -5, -2),)])  # fmt: skip
def test_a_timeline_needs_no_measurement_nor_any_length(entries: tuple[Stretch, ...]) -> None:
    drawing = timeline(plan(), entries)
    assert "nan" not in drawing.svg
    assert "inf" not in drawing.svg
    ET.fromstring(drawing.svg)


def test_what_overlaps_in_time_does_not_overlap_in_the_picture() -> None:
    several = [Stretch("send", f"t{i}", ("a", "b"), i, 20) for i in range(4)]
    drawing = timeline(plan(), several)
    boxes = [group.find(f"{SVG}rect") for group in ET.fromstring(drawing.svg).iter(f"{SVG}g")
             if "predicted" in (group.findtext(f"{SVG}title") or "")]  # fmt: skip
    assert len({box.attrib["y"] for box in boxes if box is not None}) == 4


@pytest.mark.parametrize(("rough", "step"), [(0.03, 0.05), (1, 1), (1.01, 2), (12, 20), (60, 100)])
def test_steps_of_the_axis(rough: float, step: float) -> None:
    assert nice_step(rough) == pytest.approx(step)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 ms"), (0.0042, "0.0042 ms"), (9.994, "9.99 ms"), (9.996, "10.0 ms"),
     (99.96, "100 ms"), (12345.6, "12346 ms"), (None, "unknown")],
)  # fmt: skip
def test_milliseconds(value: float | None, text: str) -> None:
    assert ms_text(value) == text


def test_bytes_and_operations_have_their_units() -> None:
    assert [bytes_text(x) for x in (0, 1023, 1024, 5 << 20)] == ["0 B", "1023 B", "1.00 KiB",
                                                               "5.00 MiB"]  # fmt: skip
    assert flops_text(1_999_999_999) == "2.00 GFLOP"


class Tags(HTMLParser):
    """Counts elements as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_names_are_only_text() -> None:
    data = plan_data(LINES, names={"t1": EVIL[:-1]})
    data["components"][1]["layers"] = [EVIL[:-1]]
    evil = profile({"l1": EVIL[:-1], "n1": EVIL[:-1]})
    plain = [Tags(drawing.html).names for drawing in drawings()]
    for drawing, names in zip(drawings(Plan.from_data(data), evil), plain, strict=True):
        found = Tags(drawing.html)
        assert "script" not in found.names
        assert abs(len(found.names) - len(names)) <= 4  # not one element more by the name
        ET.fromstring(drawing.svg)
        ET.fromstring(drawing.svg_file)
    # The control: the name is there, and is shown as it is.
    shown = Tags(layer_graph(Plan.from_data(data), evil).html).texts
    assert "</svg><script>alert('x')</script>&\"\ufffd\ufffd" in shown


def test_half_surrogates_and_names_of_bars_are_only_text() -> None:
    drawing = timeline(plan(), [Stretch("compute", EVIL, (EVIL,), 0, 5)])
    assert "script" not in Tags(drawing.html).names
    ET.fromstring(drawing.svg.encode())
    assert drawing.picture("png").startswith(b"\x89PNG")


def test_nothing_is_loaded_and_nothing_evaluated() -> None:
    for drawing in drawings():
        whole = drawing.html + drawing.style + (drawing.script or "")
        assert not re.findall(r"(?:src|href)\s*=|@import|url\((?!#)|\beval\b|innerHTML|fetch\(|"
                              r"new Function|XMLHttp", whole)  # fmt: skip
        addresses = set(re.findall(r"https?://[^\s\"']+", whole))
        assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_every_class_of_a_colour_has_a_rule() -> None:
    rules = set(re.findall(r"\.(tt-[fk]-[a-z0-9-]+)", theme_css()))
    for drawing in drawings(plan(quantized_layers=["l1"])):
        used = set(re.findall(r"tt-[fk]-[a-z0-9-]+", drawing.svg))
        assert used
        assert used <= rules


def test_ids_are_those_of_the_drawing() -> None:
    ids = [x for drawing in drawings(plan(quantized_layers=["l1"]))
           for x in re.findall(r' id="([^"]+)"', drawing.html)]  # fmt: skip
    assert len(ids) == len(set(ids))
    used = {x for drawing in drawings(plan(quantized_layers=["l1"]))
            for x in re.findall(r"url\(#([^)]+)\)", drawing.html)}  # fmt: skip
    assert used <= set(ids)


def test_the_same_input_gives_the_same_bytes() -> None:
    for first, again in zip(drawings(), drawings(), strict=True):
        assert first.html == again.html
        assert first.picture("svg") == again.picture("svg")
    small = [timeline(plan(), PREDICTED[:1]).picture(kind) for kind in ("png", "png", "pdf", "pdf")]
    assert small[0] == small[1]
    assert small[2] == small[3]


def test_a_dark_picture_differs() -> None:
    drawing = timeline(plan(), PREDICTED[:1])
    assert drawing.picture("png") != drawing.picture("png", dark=True)


def test_a_high_picture_is_cut_into_bands() -> None:
    boxes = tuple(Group((Box(10, 60 * y, 80, 30, "panel"),)) for y in range(40))
    content = scene_picture(Scene(1000, 2400, boxes), "png")
    width, height = struct.unpack(">II", content[16:24])
    assert 0.3 < width / height < 3
    # The control: in one piece it is much wider than its boxes, or higher than wide.
    assert width * 96 / 150 < 1000


def test_pictures_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    drawing = timeline(plan(), PREDICTED)
    assert drawing.picture("svg").startswith(b"<svg")
    with pytest.raises(InputError, match=r"tritier\[plots\]"):
        drawing.picture("png")


def test_a_published_model_is_drawn_quickly() -> None:
    recorded = fixture()["models"]["yolo11x-seg"]
    names = [f"{index} {name}" for index, name in enumerate(recorded["layers"])]
    some, source = _recorded(recorded, names)
    start = time.perf_counter()
    drawing = layer_graph(some, source)
    assert drawing.svg.count('class="tt-node"') == 654
    # What the report promises, with room for a busy machine; it takes about 0.3 s.
    assert time.perf_counter() - start < 2


def _recorded(recorded: dict[str, list[object]], names: list[str]) -> tuple[Plan, ModelProfile]:
    """A plan on one server, and a profile with the recorded flows."""
    inner = names[1:-1]
    ends = {0: "generator", len(names) - 1: "receiver"}
    flows: list[tuple[int, list[int], float]] = recorded["flows"]  # type: ignore[assignment]
    tensors = tuple(
        TensorProfile(name=f"n{index}", source=ends.get(source, names[source]),
                      consumers=tuple(ends.get(x, names[x]) for x in sorted(readers)))
        for index, (source, readers, _) in enumerate(flows)
    )  # fmt: skip
    layers = tuple(LayerProfile(name=name, op_type="Conv", weight_bytes=0) for name in inner)
    totals = ProfileTotals(known_flops=0, weight_bytes=0, layers=len(inner), constant_nodes=0,
                           dropped_nodes=0)  # fmt: skip
    data = plan_data(["a: t0 -> t9"], servers="a")
    data["components"][0]["layers"] = inner
    source = ModelProfile(model=PlanModel(name="m", sha256=SHA256), layers=layers,
                          tensors=tensors, totals=totals)  # fmt: skip
    return Plan.from_data(data), source


def test_assets_are_in_the_package() -> None:
    for name in ("drawing.css", "drawing.js", "zoom.html"):
        assert asset(name)
