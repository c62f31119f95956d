"""The page and the Markdown summary as text: safe, the same twice, and without any load."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.helpers.report import arguments, planned, write_example
from tritier.cli import main
from tritier.errors import InputError
from tritier.report.markdown import render_markdown
from tritier.report.page import render_page, script_json
from tritier.report.parts import (
    Axis,
    Block,
    Chart,
    Commands,
    Evidence,
    Facts,
    Missing,
    Notice,
    Report,
    Section,
    Series,
    Tile,
    table,
)

EVIL = "</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}|`*"


def evil() -> Report:
    """Every text of the report tries to be markup."""
    evidence = Evidence(EVIL, f"measured {EVIL}", EVIL, EVIL)
    chart = Chart(
        "c", EVIL, EVIL, Axis(EVIL), Axis(EVIL),
        (Series(EVIL, (1, 2), (1.0, 2.0), notes=(EVIL, EVIL), hollow=(True, False)),),
        evidence, hollow_means=EVIL,
    )  # fmt: skip
    blocks: tuple[Block, ...] = (
        chart, table("t", EVIL, (EVIL,), ((EVIL,),), evidence, EVIL), Notice(EVIL, "warn"),
        Facts("f", EVIL, ((EVIL, EVIL),)), Commands("m", EVIL, (EVIL,)), evidence,
        table("u", EVIL, (EVIL,), ((EVIL,),), folded=True),
    )  # fmt: skip
    section = Section("s", EVIL, blocks, (EVIL,), (Missing(EVIL, EVIL),),
                      (Tile(EVIL, EVIL, EVIL, EVIL),))  # fmt: skip
    return Report(EVIL, EVIL, (section,), EVIL)


class Tags(HTMLParser):
    """Elements, attributes that would load or run something, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            local = (value or "").startswith(("#", "data:,"))
            if name.startswith("on") or (name in ("src", "href", "action") and not local):
                self.loads.append(f"{tag} {name}={value}")


def test_nothing_in_a_document_becomes_markup() -> None:
    text = render_page(evil())
    found = Tags(text)
    assert "img" not in found.tags
    assert found.loads == []
    assert "49" not in re.sub(r"<script>.*?</script>|sha256-\S+", "", text, flags=re.DOTALL)
    assert found.tags.count("script") == 4  # theme, JSON, plotly, page
    control = Tags(f"<main>{EVIL}</main>")
    assert "img" in control.tags
    assert control.loads


def test_json_in_a_script_ends_nothing() -> None:
    text = script_json({"a": "</script><!--&\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


def test_only_the_scripts_of_the_page_may_run() -> None:
    text = render_page(evil())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; script-src 'sha256-")
    for script in re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules


def test_plotly_is_there_only_for_charts() -> None:
    section = Section("s", "S", (Notice("n"),))
    text = render_page(Report("t", "s", (section,), "1"))
    assert len(text) < 100_000
    assert "Plotly.react" in text  # the page's own script, which finds no charts
    assert len(render_page(evil())) > 1_000_000


def test_markdown_has_no_markup_of_documents() -> None:
    text = render_markdown(evil())
    assert "<img" not in "\n".join(x for x in text.splitlines() if not x.startswith("    "))
    assert "![" not in text
    assert "](figs/c.png)" in render_markdown(evil(), "figs")


# ------------------------------------------------------------------------------ command


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return arguments(write_example(tmp_path_factory.mktemp("page") / "all", planned()))


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


def test_the_command_writes_the_same_twice(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    given = [*words, "-o", str(target), "--markdown", str(tmp_path / "r.md"), "--json"]
    assert run(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == []
    assert [x["id"] for x in told["sections"]][:3] == ["summary", "layers", "components"]
    first = target.read_bytes(), (tmp_path / "r.md").read_bytes()
    found = Tags(first[0].decode())
    assert found.loads == []
    assert len(set(found.ids)) == len(found.ids)
    assert run(given) == 3
    assert "pass --force" in capsys.readouterr().err
    assert run([*given, "--force"]) == 0
    assert (target.read_bytes(), (tmp_path / "r.md").read_bytes()) == first


def test_a_wrong_file_leaves_nothing(tmp_path: Path, words: list[str]) -> None:
    target = tmp_path / "out" / "report.html"
    assert run([*words, "--bench", str(tmp_path / "none.json"), "-o", str(target)]) == 3
    assert not target.parent.exists()


def test_page_and_markdown_are_two_files(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    both = str(tmp_path / "same")
    assert run([*words, "-o", both, "--markdown", both]) == 3
    assert "can't be the same file" in capsys.readouterr().err


def test_charts_without_plotly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"tritier\[report\]"):
        render_page(evil())


def test_the_command_draws_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PNG and SVG, and the summary shows them."""
    monkeypatch.chdir(tmp_path)
    paths = write_example(tmp_path / "documents", planned())
    Path("figures").mkdir()
    Path("figures", "mine.txt").touch()
    with pytest.raises(SystemExit) as ended:
        main([*arguments(paths), "--figures", "figures", "--markdown", "report.md", "--json"])
    assert ended.value.code == 0
    named = json.loads(capsys.readouterr().out)["figures"]
    assert "cost-0-parts" in named
    found = {path.name for path in Path("figures").iterdir()}
    assert found == {"mine.txt", *(f"{name}.{kind}" for name in named for kind in ("png", "svg"))}
    for path in Path("figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    text = Path("report.md").read_text()
    assert all(f"](figures/{name}.png)" in text for name in named)
    with pytest.raises(SystemExit) as ended:
        main([*arguments(paths), "--figures", "report.md", "--force"])
    assert ended.value.code == 3
