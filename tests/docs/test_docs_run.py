"""The commands in the pages work: typed as they stand, page by page."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks, marks, pages, tokens
from tests.docs.run_table import GENERATED, RUNS, commands_of, why_not
from tests.docs.shell import Shell
from tests.docs.stage import set_stage

FOUND = {page: blocks(page) for page in pages()}
TO_RUN = [page for page, found in FOUND.items() if any(why_not(block) is None for block in found)]


@pytest.mark.flaky(max_runs=2, min_passes=1)
@pytest.mark.integration
@pytest.mark.parametrize("page", TO_RUN)
def test_a_page_can_be_typed(page: str, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    (folder / "page").mkdir()
    set_stage(folder / "page")
    shell = Shell(folder / "page", folder / "tools")
    try:
        if page in RUNS:
            shell.run(Block(page, 0, "sh", "", False, ""), list(RUNS[page].before))
        for block in FOUND[page]:
            if why_not(block) is None:
                shell.run(block, commands_of(block))
    finally:
        shell.close()


@pytest.mark.parametrize("page", pages())
def test_marks_have_reasons_and_blocks(page: str) -> None:
    """A mark says why, and stands right before a block of commands."""
    marked = [block for block in FOUND[page] if block.marked]
    assert [block.where for block in marked if len(block.why) < 5] == []
    assert len(marked) == marks(page), "a mark stands before no block"


def test_most_pages_are_run() -> None:
    decided = FOUND.keys() - GENERATED
    everything = [block for page in decided for block in FOUND[page]]
    run = [block for block in everything if why_not(block) is None]
    assert len(run) >= len(everything) / 3
    assert {"README.md", "docs/tutorial.md", "docs/inspect.md", "docs/prepare.md"} <= set(TO_RUN)


def test_the_table_is_not_stale() -> None:
    """All it names is there."""
    assert set(RUNS) <= set(FOUND)
    for page, run in RUNS.items():
        lines = [command for block in FOUND[page] for command in block.commands]
        unused = [x for x in run.left_out if not any(line.startswith(x) for line in lines)]
        assert unused == []


def test_a_mark_without_a_reason_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<!-- not run: -->\n```sh\nls\n```\n\n<!-- not run: needs docker -->\n```sh\nls\n```\n"
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr("tests.docs.pages.ROOT", tmp_path)
    first, second = blocks("page.md")
    assert (first.marked, first.why) == (True, "")
    assert (second.marked, second.why) == (True, "needs docker")
    assert marks("page.md") == 2


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path / "tools")
    block = Block("page.md", 7, "sh", "", False, "")
    assert shell.run(block, ["mkdir a", "cd a", "echo here"]) == "here\n"
    assert shell.run(block, ["pwd"]).endswith("/a\n")
    with pytest.raises(AssertionError, match=r"page\.md:7: exit code 1"):
        shell.run(block, ["false", "true"])
    with pytest.raises(AssertionError, match="MODEL"):
        shell.run(block, ["tritier inspect"])


def test_the_example_in_python_works(tmp_path: Path) -> None:
    (code,) = [
        token.content
        for token in tokens("docs/python_api.md")
        if token.type == "fence" and token.info.strip() == "python"
    ]
    set_stage(tmp_path / "page")
    shell = Shell(tmp_path / "page", tmp_path / "tools")
    (tmp_path / "page" / "example.py").write_text(code)
    shell.run(Block("docs/python_api.md", 0, "sh", "", False, ""), ["python3 example.py"])
    assert (tmp_path / "page" / "repos" / "manifest.json").is_file()
