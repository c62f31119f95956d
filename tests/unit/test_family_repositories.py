"""Several plans side by side: names that never mix, one router, one whole model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.configs import crossings, parameters, read_configs, unused_tensors
from tests.helpers.plans import files_of, make_plan
from tritier.documents import Batching, Family, Manifest, Plan
from tritier.errors import CheckFailed, InputError
from tritier.files import sha256_bytes
from tritier.repository import (
    FamilyPart,
    GenerateOptions,
    Repositories,
    generate_family_files,
    without_whole,
    write_files,
)
from tritier.resources import triton_dir
from tritier.workflow import family_verify

THREE = ["a: t0 -> t1", "b: t1 -> t2 t3", "c: t1 t2 -> t4", "a: t3 t4 -> t9"]
TWO = ["b: t0 -> t9"]


def family_of(plans: Sequence[Plan], **changes: Any) -> Family:
    """All plans in one class, the whole model last."""
    ids = [plan.id for plan in plans]
    data = {
        "model": plans[0].model.model_dump(),
        "plans": [
            {"id": p.id, "file": f"elsewhere/{p.id}.json", "servers": [s.name for s in p.servers]}
            for p in plans
        ],
        "classes": [{"name": "any", "plans": [*ids, "whole"], "deadline_ms": 900, "hedge": True}],
        "default_class": "any",
    }
    return Family.from_data(data | changes)


def generated(
    plans: Sequence[Plan], batches: Sequence[int] = (0, 0, 0), **options: Any
) -> dict[str, bytes]:
    parts = [
        FamilyPart(
            plan,
            {c.id: f"{plan.id} {c.id}".encode() for c in plan.components},
            Batching(max_batch_size=batch, reason="for a test"),
        )
        for plan, batch in zip(plans, batches, strict=False)
    ]
    return generate_family_files(family_of(plans), parts, b"whole", GenerateOptions(**options))


@pytest.fixture(scope="module")
def plans() -> tuple[Plan, Plan]:
    return make_plan(THREE, servers="abc"), make_plan(TWO, servers="ab")


@pytest.fixture(scope="module")
def files(plans: tuple[Plan, Plan]) -> dict[str, bytes]:
    return generated(plans)


def test_names_of_plans_never_mix(plans: tuple[Plan, Plan], files: dict[str, bytes]) -> None:
    configs = read_configs(files)
    ids = {plan.id for plan in plans}
    for (server, name), config in configs.items():
        if name in ("m", "m__whole"):
            assert server == "a"
            continue
        (own,) = re.findall(r"^m__([0-9a-f]{8})", name)
        assert own in ids
        assert parameters(config)["plan_id"] == own
        others = str(config).replace(own, "")
        assert not any(other in others for other in ids - {own})
    assert unused_tensors(configs) == []


def test_a_plan_in_a_family_is_the_plan_alone(
    plans: tuple[Plan, Plan], files: dict[str, bytes]
) -> None:
    """But for the name of its entry ensemble; and it moves the same tensors."""
    for plan in plans:
        alone = files_of(plan)
        own = {path for path in files if f"m__{plan.id}" in path}
        for path in own - {f"a/m__{plan.id}/config.pbtxt", f"a/m__{plan.id}/1/.keep"}:
            if not path.endswith("model.onnx"):
                assert files[path] == alone[path]
        entry = files[f"a/m__{plan.id}/config.pbtxt"].decode()
        named = entry.replace(f'name: "m__{plan.id}"\n', 'name: "m"\n')
        assert named.encode() == alone["a/m/config.pbtxt"]
        mine = {k: v for k, v in read_configs(files).items() if plan.id in k[1]}
        assert crossings(mine) == crossings(read_configs(alone))


def test_files_of_a_plan_do_not_hang_on_its_family(
    plans: tuple[Plan, Plan], files: dict[str, bytes]
) -> None:
    """So a change of the family loads what is new, and nothing else."""
    other = generated(plans[:1])
    for path in other:
        if path.startswith(("a/m/", "family", "manifest")):
            assert other[path] != files[path] or path.endswith(".py")
        else:
            assert other[path] == files[path], path


def test_the_router_is_told_all(plans: tuple[Plan, Plan], files: dict[str, bytes]) -> None:
    one, two = plans
    config = read_configs(files)["a", "m"]
    told = parameters(config)
    assert (config.backend, config.max_batch_size) == ("python", 0)
    assert [t.name for t in (*config.input, *config.output)] == ["n0", "n9"]
    assert json.loads(told["plans"]) == {
        one.id: {"model": f"m__{one.id}", "servers": ["a", "b", "c"]},
        two.id: {"model": f"m__{two.id}", "servers": ["a", "b"]},
        "whole": {"model": "m__whole", "servers": ["a"]},
    }
    assert json.loads(told["classes"]) == {
        "any": {"plans": [one.id, two.id, "whole"], "deadline_ms": 900, "hedge": True}
    }
    assert json.loads(told["urls"]) == {"a": "a:8001", "b": "b:8001", "c": "c:8001"}
    rest = {key: told[key] for key in ("default_class", "deadline_ms", "entry", "max_in_flight")}
    assert rest == {
        "default_class": "any", "deadline_ms": "900", "entry": "a", "max_in_flight": "64"
    }  # fmt: skip
    assert told["family_id"] == told["plan_id"]
    assert re.fullmatch("[0-9a-f]{8}", told["family_id"])
    own = [*(triton_dir() / "models" / "router").glob("*.py"),
           *(triton_dir() / "shared").glob("*.py")]  # fmt: skip
    copies = {path.name: path.read_bytes() for path in own}
    assert copies == {
        path.rsplit("/", 1)[1]: data for path, data in files.items() if path.startswith("a/m/1/")
    }


def test_the_family_s_id_is_that_of_what_the_router_goes_by(plans: tuple[Plan, Plan]) -> None:
    def own_id(family: Family) -> str:
        parts = [
            FamilyPart(p, {c.id: b"" for c in p.components}, Batching(max_batch_size=0, reason=""))
            for p in plans
        ]
        made = generate_family_files(family, parts, b"w", GenerateOptions())
        return str(json.loads(made["manifest.json"])["family_id"])

    classes = family_of(plans).model_dump(mode="json")["classes"]
    later = [{**classes[0], "deadline_ms": 901}]
    assert own_id(family_of(plans)) == own_id(family_of(plans))
    assert own_id(family_of(plans)) != own_id(family_of(plans, classes=later))


def test_the_manifest_has_all_plans(
    plans: tuple[Plan, Plan], files: dict[str, bytes], tmp_path: Path
) -> None:
    data = json.loads(files["manifest.json"])
    assert not {"plan_id", "batching", "tolerances", "tensors", "wires"} & set(data)
    manifest = Manifest.from_data(data)
    assert manifest.plans is not None
    assert [(p.id, p.file, p.entry) for p in manifest.plans] == [
        (plan.id, f"plans/{plan.id}.json", f"m__{plan.id}") for plan in plans
    ]
    listed = {file.path: file.sha256 for file in manifest.files}
    assert listed == {k: sha256_bytes(v) for k, v in files.items() if k != "manifest.json"}
    with pytest.raises(InputError, match="plans"):
        Manifest.from_data({**data, "plans": []})
    write_files(files, tmp_path / "out", force=False)
    found = Repositories.open(tmp_path / "out")
    assert found.plans == plans
    assert found.title == f"family {manifest.family_id}"
    assert [part.entry_model for part in found.parts()] == [f"m__{plan.id}" for plan in plans]
    for part in found.parts():
        assert set(part.sub_models) == {c.id for c in part.plan.components}
        for component, path in part.sub_models.items():
            assert path.read_bytes() == f"{part.plan.id} {component}".encode()
    order = [model for phase in found.phases() for model in phase]
    assert sorted(m.name for m in order) == sorted(m.name for m in manifest.models)
    assert [m.kind for m in found.phases()[-1]] == ["router"]
    assert found.servers()[-1] == "a"


def test_one_plan_has_a_manifest_as_before() -> None:
    data = json.loads(files_of(make_plan(TWO))["manifest.json"])
    assert list(data) == [
        "format", "tool_version", "plan_id", "model", "model_sha256", "batching", "tolerances",
        "tensors", "wires", "models", "files",
    ]  # fmt: skip
    assert all("plan" not in model for model in data["models"])
    with pytest.raises(InputError, match="wires: is missing"):
        Manifest.from_data({key: value for key, value in data.items() if key != "wires"})
    with pytest.raises(InputError, match="it has both"):
        Manifest.from_data({**data, "family_id": "0" * 8})


def test_the_whole_model_takes_the_batch_that_all_plans_take() -> None:
    shapes: dict[str, list[int | str]] = {f"t{i}": ["N", 2] for i in range(10)}
    batched = make_plan(THREE, shapes=shapes), make_plan(TWO, servers="ab", shapes=shapes)
    for batches, expected in (((8, 4), 4), ((8, 0), 0)):
        configs = read_configs(generated(batched, batches))
        assert configs["a", "m__whole"].max_batch_size == expected
        assert configs["a", "m"].max_batch_size == 0
        assert list(configs["a", "m"].input[0].dims) == [-1, 2]


def test_plans_that_do_not_belong_together_are_refused(plans: tuple[Plan, Plan]) -> None:
    elsewhere = make_plan(["b: t0 -> t9"], servers="ba")
    with pytest.raises(InputError, match="apps call one server"):
        generated((plans[0], elsewhere))
    other = make_plan(["b: t0 -> t9"], servers="ab", names={"t9": "other"})
    with pytest.raises(InputError, match="has other inputs or outputs"):
        generated((plans[0], other))
    with pytest.raises(InputError, match="not those of the family"):
        generate_family_files(
            family_of(plans),
            [FamilyPart(plans[1], {"c0": b""}, Batching(max_batch_size=0, reason=""))],
            b"",
            GenerateOptions(),
        )


def test_an_answer_of_another_family_is_named(
    plans: tuple[Plan, Plan],
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where Triton says which plan has answered, as 24.10 does not."""
    write_files(files, tmp_path / "out", force=False)
    said = {"tritier_plan": "deadbeef"}
    monkeypatch.setattr(family_verify, "ask", lambda *_: ({}, said))
    none: Any = None
    live = family_verify._Live(
        Repositories.open(tmp_path / "out"), none, [{}], none, lambda _: None
    )
    with pytest.raises(CheckFailed, match=f"by plan deadbeef, .* {plans[0].id}, .*deploy it first"):
        list(live.router())


def test_without_the_whole_model(plans: tuple[Plan, Plan]) -> None:
    assert not without_whole(family_of(plans)).serves_whole
    only = [
        {"name": "any", "plans": [p.id for p in plans], "deadline_ms": 1},
        {"name": "safe", "plans": ["whole"], "deadline_ms": 1},
    ]
    with pytest.raises(InputError, match="class 'safe' has no plan but 'whole'"):
        without_whole(family_of(plans, classes=only))


@pytest.mark.parametrize(("size", "batch"), [(0, 0), (0, 4), (7, 0), (7, 4)])
def test_a_queue_policy_is_written_if_asked_for(size: int, batch: int) -> None:
    shapes: dict[str, list[int | str]] = {f"t{i}": ["N", 2] for i in range(10)}
    options = GenerateOptions(max_queue_size=size, deadline_ms=250)
    configs = read_configs(files_of(make_plan(TWO, shapes=shapes), batch, options))
    (config,) = [c for (_, name), c in configs.items() if name.endswith("__c0")]
    assert config.HasField("dynamic_batching") == bool(size or batch)
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size == size
    assert policy.default_timeout_microseconds == (250_000 if size else 0)
    assert policy.allow_timeout_override == bool(size)
    assert not configs["a", "m"].HasField("dynamic_batching")
