"""`tritier plan --alternatives` and `tritier generate` of its family, as a user calls them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tests.helpers.models import save
from tests.helpers.planning import ALL_GAIN, CHAIN, link, network, noise, servers, timing
from tritier import cli
from tritier.cli import main
from tritier.cli.plan_family import read_classes
from tritier.documents import Family, Manifest, Plan, Ranges
from tritier.errors import InputError, UsageError
from tritier.files import sha256_file
from tritier.graph import load_model
from tritier.repository import Repositories

# Typer builds all commands whenever one is called; here it does so once.
BUILT = typer.main.get_command(cli.app)
PLANNER = ("--timing", "profiles", "--network", "network.json", "--no-explain")
NOISE = ("--noise", "noise.json", "--ranges", "ranges.json")
Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and profiles of three servers: b is ten times as fast as the entry a, c five times;
    all links are good."""
    folder = tmp_path_factory.mktemp("documents")
    model = load_model(save(folder, CHAIN))
    (folder / "profiles").mkdir()
    for name, factor in (("a", 1.0), ("b", 0.1), ("c", 0.2)):
        times = {
            layer: (slow * factor, None if fast is None else fast * factor)
            for layer, (slow, fast) in ALL_GAIN.items()
        }
        (folder / "profiles" / f"{name}.json").write_text(timing(model, name, times).to_json())
    np.savez(folder / "in.npz", x=np.ones((1, 1, 512, 512), np.float32))
    inputs = [{"name": "in.npz", "sha256": sha256_file(folder / "in.npz")}]
    limits = Ranges(
        model_sha256=model.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys("xabcdy", (-4.0, 4.0)),
    )  # fmt: skip
    links = [link(one, other, 5000, 1) for one in "abc" for other in "abc" if one != other]
    written = {
        "servers.json": servers("abc"),
        "network.json": network(*links, names="abc"),
        "noise.json": noise(model, inputs=inputs, ranges_sha256=limits.sha256),
        "ranges.json": limits,
    }
    for name, document in written.items():
        (folder / name).write_text(document.to_json())
    return folder


@pytest.fixture
def run(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    monkeypatch.chdir(tmp_path)
    for path in documents.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(cli, "app", BUILT)

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert caught.value.code == code, err
        return out, err

    return call


def plan(run: Run, *arguments: str, code: int = 0) -> tuple[str, str]:
    """`tritier plan m.onnx ... --alternatives`."""
    head = ("plan", "m.onnx", "--servers", "servers.json", *PLANNER, "--alternatives")
    return run(*head, *arguments, code=code)


TWO = ("--class", "critical:noise=0,deadline=500,hedge", "--class", "low:noise=9,default", *NOISE)


@pytest.fixture
def two(run: Run, documents: Path) -> tuple[str, str]:
    """A family of two classes in `fam`, solved once; what the command said."""
    kept = documents / "fam"
    if not kept.exists():
        said = plan(run, *TWO, "-o", "fam")
        shutil.copytree("fam", kept)
        (kept / "said.json").write_text(json.dumps(said))
        return said
    Path("fam").unlink()  # a link, like all documents
    shutil.copytree(kept, "fam")
    out, err = json.loads((kept / "said.json").read_text())
    return out, err


def test_a_plan_per_class_and_lost_server(two: tuple[str, str]) -> None:
    out, err = two
    family = Family.load(Path("fam/family.json"))
    plans = {item.id: Plan.load(Path("fam") / item.file) for item in family.plans}
    assert list(plans) == [p.id for p in plans.values()]
    critical, low = family.classes
    assert (critical.name, critical.deadline_ms, critical.hedge) == ("critical", 500, True)
    assert (low.name, low.deadline_ms, low.hedge) == ("low", 10_000, False)
    assert family.default_class == "low"
    best, second = plans[critical.plans[0]], plans[low.plans[0]]
    assert best.is_exact
    assert second.quantized_layers
    # b is the fastest, c the next: without b it is c, without c nothing changes.
    assert {c.server for c in best.components} >= {"b"}
    without_b = [x for x in family.plans if "b" in x.without and "b" not in x.servers]
    assert {x.id for x in without_b} >= {critical.plans[1]}
    assert "c" in family.plan(critical.plans[0]).without
    assert critical.plans[-1] == low.plans[-1] == "whole"
    assert "classes of requests" in out
    assert "plans written to fam" in err


@pytest.mark.usefixtures("two")
def test_no_fallback_is_noisier_than_its_class() -> None:
    family = Family.load(Path("fam/family.json"))
    critical, low = family.classes
    noisy = {x.id for x in family.plans if not Plan.load(Path("fam") / x.file).is_exact}
    assert noisy
    assert not noisy & set(critical.plans)
    # The other way round less noise is fine: exact plans stand behind those of the class.
    exact = [x for x in low.plans if x not in noisy and x != "whole"]
    assert exact
    assert set(exact) == set(critical.plans) - {"whole"}
    order = [low.plans.index(x) for x in exact]
    assert min(order) > max(low.plans.index(x) for x in noisy)


def test_without_classes_there_is_one(run: Run) -> None:
    plan(run)
    family = Family.load(Path("family/family.json"))
    (only,) = family.classes
    assert (only.name, only.noise_limits) == ("default", {})
    assert len(only.plans) >= 2
    assert {path.name for path in Path("family").iterdir()} == {"family.json", "plans"}
    run("generate", "family", "--dry-run")  # the model is known
    assert not Path("repos").exists()


def test_json_and_dry_run_write_nothing(run: Run) -> None:
    out, _ = plan(run, "--json", "--dry-run", "--no-whole")
    data = json.loads(out)
    family = Family.from_data(data["family"])
    assert not family.serves_whole
    assert set(data["reports"]) == {x.id for x in family.plans}
    assert not Path("family").exists()


@pytest.mark.usefixtures("two")
def test_a_family_becomes_repositories_with_a_router(run: Run) -> None:
    options = ("--model", "m.onnx", "--max-in-flight", "32")
    _, err = run("generate", "fam", *options, "-o", "repos")
    assert "family of" in err
    repositories = Repositories.open(Path("repos"))
    family = repositories.family
    assert family is not None
    assert repositories.id == repositories.manifest.family_id
    kinds = [m.kind for m in repositories.manifest.models if m.server == "a"]
    assert kinds.count("router") == 1 == kinds.count("whole")
    assert [m.kind for m in repositories.phases()[-1]] == ["router"]
    # What was generated is a family itself, and gives the same again.
    run("generate", "repos/family.json", *options, "-o", "again")
    assert Manifest.load(Path("again/manifest.json")) == repositories.manifest
    run("verify", "repos", "--model", "m.onnx", "-n", "1")
    rows = json.loads(Path("repos/verification.json").read_text())
    assert rows["family_id"] == repositories.id
    assert {row["plan_id"] for row in rows["results"]} == {x.id for x in family.plans}


def test_one_plan_behind_a_router(run: Run) -> None:
    run("plan", "m.onnx", "--servers", "servers.json", *PLANNER)
    run("generate", "plan.json", "-o", "repos", "--router", "--deadline-ms", "700")
    only = Repositories.open(Path("repos"))
    assert only.family is not None
    assert [(c.name, c.plans, c.deadline_ms) for c in only.family.classes] == [
        ("default", (only.plan.id, "whole"), 700)
    ]
    run("generate", "plan.json", "-o", "bare", "--router", "--without-whole")
    bare = Repositories.open(Path("bare"))
    assert not any(model.kind == "whole" for model in bare.manifest.models)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--class", "a:nois=0"), 2, "did you mean 'noise'"),
        (("--class", "a:noise=loud"), 3, "classes.a.noise"),
        (("--class", "a", "--class", "a:hedge"), 2, "'a' stands twice"),
        (("--class", "a:default", "--class", "b:default"), 2, "a and b are all the default"),
        (("--class", "low:noise=0.1"), 2, "class 'low' limits noise to 0.1"),
        (("--class", "a:latency-weight=0.5"), 2, "for the objective weighted"),
        (("--class", "a:objective=speed"), 3, "objective"),
        (("--class", "a:noise=1", "--class", "b", *NOISE), 2, "class 'b' has no limit of noise"),
        (("--report", "r.json"), 2, "--report is of one plan"),
        (("-o", "m.onnx"), 3, "is a file"),
    ],
)
def test_what_is_refused(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    out, err = plan(run, *arguments, code=code)
    assert message in err
    assert out == ""
    assert not Path("family").exists()


def test_options_of_families_need_one(run: Run) -> None:
    _, err = run("plan", "m.onnx", "--servers", "servers.json", *PLANNER, "--class", "a", code=2)
    assert "give --alternatives" in err


def test_a_folder_that_is_no_family_is_never_replaced(run: Run) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    _, err = plan(run, "-o", "mine", "--force", code=3)
    assert "is no family of plans" in err
    assert [p.name for p in Path("mine").iterdir()] == ["thesis.txt"]


def test_classes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text("classes:\n  fast: {noise: {y: 0.5}, deadline_ms: 50}\n  slow: {}\n")
    found = read_classes(file, ())
    assert list(found.classes) == ["fast", "slow"]
    assert found.classes["fast"].noise == {"y": 0.5}
    assert found.default_class == "fast"
    with pytest.raises(UsageError, match="give one"):
        read_classes(file, ("a",))
    file.write_text("classes: {fast: {}}\ndefault: fats\n")
    with pytest.raises(InputError, match=r"'fats' is no class \(did you mean 'fast'\?\)"):
        read_classes(file, ())
