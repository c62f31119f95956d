"""Generated trees: the same bytes for the same plan, written whole, checked when opened."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.helpers.models import Split, split
from tests.helpers.plans import files_of, make_plan
from tritier.documents import Optimisation
from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.repository import GenerateOptions, Repositories, generate_files, write_files
from tritier.resources import triton_dir

TEXT = """
    g (float[N,4] x) => (float[N,4] y) {
      [b] h = Relu(x) [c] k = Neg(h) [a] y = Add(h, k)
    }
"""
WHERE = {"a": "a", "b": "b", "c": "c"}


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def item(tmp_path: Path) -> Split:
    """A small split with a mailbox."""
    return split(tmp_path, TEXT, WHERE)


# -- what is generated ----------------------------------------------------------------------------


def test_r6_the_same_plan_gives_the_same_bytes(item: Split, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert split(elsewhere, TEXT, WHERE).files == item.files


def test_another_choice_gives_other_bytes(item: Split, tmp_path: Path) -> None:
    for options in (GenerateOptions(deadline_ms=1), GenerateOptions(optimisation="basic")):
        other = split(tmp_path, TEXT, WHERE, options=options).files
        assert other.keys() == item.files.keys()
        assert other != item.files


def test_nothing_of_the_machine_is_in_the_files(item: Split, tmp_path: Path) -> None:
    for path, data in item.files.items():
        assert str(tmp_path).encode() not in data, path
        assert os.uname().nodename.encode() not in data or len(os.uname().nodename) < 5, path


def test_python_models_are_copies(item: Split) -> None:
    for model in item.manifest.models:
        if model.kind not in ("remote", "mailbox", "key"):
            continue
        own = triton_dir() / "models" / model.kind
        sources = [*own.glob("*.py"), *(triton_dir() / "shared").glob("*.py")]
        assert len({path.name for path in sources}) == len(sources)  # none hides another
        copies = {
            path.rsplit("/", 1)[1]: data
            for path, data in item.files.items()
            if path.startswith(f"{model.server}/{model.name}/1/")
        }
        assert copies == {path.name: path.read_bytes() for path in sources}


def test_the_manifest_lists_every_file_but_itself(item: Split) -> None:
    listed = {file.path: (file.bytes, file.sha256) for file in item.manifest.files}
    assert listed == {
        path: (len(data), sha256_bytes(data))
        for path, data in item.files.items()
        if path != "manifest.json"
    }
    assert item.manifest.plan_id == item.plan.id
    assert {row.id: row.name for row in item.manifest.tensors} == {
        tensor.id: tensor.name for tensor in item.plan.tensors
    }


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("all", [("disabled", 0.0), ("all", 1e-5)]),
        ("extended", [("disabled", 0.0), ("extended", 1e-5)]),
        ("basic", [("disabled", 0.0), ("basic", 0.0)]),
        ("disabled", [("disabled", 0.0)]),
    ],
)
def test_the_manifest_states_what_rule_r4_allows(
    tmp_path: Path, level: Optimisation, expected: list[tuple[str, float]]
) -> None:
    manifest = split(tmp_path, TEXT, WHERE, options=GenerateOptions(optimisation=level)).manifest
    assert [(t.optimisation, t.absolute) for t in manifest.tolerances] == expected


def test_faulty_wiring_is_found_before_anything_is_returned(item: Split) -> None:
    # Past the checks of the document: nothing makes t1.
    broken = item.plan.model_copy(update={"components": item.plan.components[1:]})
    with pytest.raises(InputError, match="wait for tensors that nothing makes"):
        generate_files(broken, item.sub_models, None, item.batching, GenerateOptions())


# -- writing --------------------------------------------------------------------------------------


def test_a_tree_is_written_and_read_back(item: Split, tmp_path: Path) -> None:
    write_files(item.files, tmp_path / "new" / "out", force=False)
    assert tree(tmp_path / "new") == {f"out/{name}": data for name, data in item.files.items()}
    repositories = Repositories.open(tmp_path / "new" / "out")
    assert repositories.plan == item.plan
    assert repositories.manifest == item.manifest
    assert repositories.servers() == ["b", "c", "a"]  # the entry last
    assert [m.kind for m in repositories.models_of("c")] == ["component", "mailbox", "stage"]
    found = repositories.sub_models()
    assert {c: path.read_bytes() for c, path in found.items()} == item.sub_models


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_files({"a.txt": b"1"}, tmp_path / "out", force=False)
    assert tree(tmp_path) == {"out/a.txt": b"1"}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_a_folder_in_use_is_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_bytes(b"old")
    with pytest.raises(InputError, match="out is not empty: choose another folder or pass --force"):
        write_files({"a.txt": b"1"}, tmp_path / "out", force=False)
    assert tree(tmp_path) == {"out/manifest.json": b"old"}
    write_files({"a.txt": b"1"}, tmp_path / "out", force=True)
    assert tree(tmp_path) == {"out/a.txt": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced_by_a_tree(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(InputError, match="out is a file: give a folder"):
        write_files({"a.txt": b"1"}, tmp_path / "out", force)
    assert tree(tmp_path) == {"out": b"mine"}


def test_a_failure_while_writing_leaves_the_old_tree(tmp_path: Path) -> None:
    write_files({"manifest.json": b"old"}, tmp_path / "out", force=False)
    with pytest.raises(OSError, match="a"):
        write_files({"a": b"new", "a/b": b"in a file"}, tmp_path / "out", force=True)
    assert tree(tmp_path) == {"out/manifest.json": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fail_to_replace(
    monkeypatch: pytest.MonkeyPatch, failing: list[int], error: type[BaseException] = OSError
) -> None:
    """Let some calls of os.replace fail, counted from 1."""
    replace, calls = os.replace, itertools.count(1)

    def fails(source: Path, target: Path) -> None:
        if next(calls) in failing:
            raise error("no space")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_while_swapping_leaves_the_old_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: type[BaseException]
) -> None:
    write_files({"manifest.json": b"old"}, tmp_path / "out", force=False)
    fail_to_replace(monkeypatch, [failing], error)
    with pytest.raises(error, match="no space"):
        write_files({"a.txt": b"new"}, tmp_path / "out", force=True)
    assert tree(tmp_path) == {"out/manifest.json": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_tree_that_cannot_come_back_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files({"manifest.json": b"old"}, tmp_path / "out", force=False)
    fail_to_replace(monkeypatch, [2, 3])
    with pytest.raises(OSError, match="no space"):
        write_files({"a.txt": b"new"}, tmp_path / "out", force=True)
    assert list(tree(tmp_path).values()) == [b"old"]


# -- opening --------------------------------------------------------------------------------------


def test_a_folder_that_was_not_generated_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest\.json: give the folder that"):
        Repositories.open(tmp_path)


def test_changed_and_missing_files_are_named(item: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_files(item.files, out, force=False)
    config = f"a/m__{item.plan.id}__c2/config.pbtxt"
    model = f"b/m__{item.plan.id}__c0/1/model.onnx"
    (out / config).write_bytes((out / config).read_bytes() + b"\n")
    (out / model).unlink()
    with pytest.raises(InputError) as caught:
        Repositories.open(out)
    assert caught.value.faults == (
        f"{config} is not the file that was generated: generate again",
        f"{model} is missing: generate again",
    )


def test_a_plan_that_was_exchanged_is_found(item: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_files(item.files, out, force=False)
    (out / "plan.json").write_text(make_plan(["b: t0 -> t9"]).to_json())
    with pytest.raises(InputError, match=r"plan\.json is not the file that was generated"):
        Repositories.open(out)


def test_plans_without_peers_need_no_python_but_the_calls() -> None:
    files = files_of(make_plan(["a: t0 -> t1", "b: t1 -> t9"]))
    assert not any(word in path for path in files for word in ("mailbox", "key", "stage", "put"))


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_was_not_generated_is_never_replaced(tmp_path: Path, force: bool) -> None:
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(InputError, match="never replaced"):
        write_files({"manifest.json": b"{}"}, precious.parent, force)
    assert precious.read_text() == "years of work"
    assert sorted(tmp_path.iterdir()) == [precious.parent]
