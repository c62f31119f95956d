"""The pages build as a site without a warning, and none is left out of its navigation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs._ext.tritier_pages import navigation
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(folder / "trees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    pages = [str(path.relative_to(DOCS).with_suffix(".html")) for path in DOCS.rglob("*.md")]
    shown = (site / "index.html").read_text(encoding="utf-8")
    tree = shown[shown.index("sidebar-tree") :]
    assert len(pages) > 60
    assert [page for page in pages if not (site / page).is_file()] == []
    listed = set(re.findall(r'href="([^"#]+\.html)"', tree))
    assert sorted(set(pages) - listed - {"index.html"}) == []


def test_links_to_files_of_the_repository_are_kept(site: Path) -> None:
    page = (site / "sharing.html").read_text(encoding="utf-8")
    (target,) = set(re.findall(r'href="(_downloads/[^"]+/camera_sharing\.yaml)"', page))
    source = ROOT / "examples" / "costs" / "camera_sharing.yaml"
    assert (site / target).read_bytes() == source.read_bytes()
    tutorial = (site / "tutorial.html").read_text(encoding="utf-8")
    (target,) = set(re.findall(r'href="(_downloads/[^"]+/README\.md)"', tutorial))
    assert (site / target).read_bytes() == (ROOT / "examples/yolo11/README.md").read_bytes()


def test_docstrings_are_on_the_page_of_python(site: Path) -> None:
    page = (site / "python_api.html").read_text(encoding="utf-8")
    assert "<pre><span></span>tensor, geometry = prepare(picture" in page
    for name in ("tritier.vision.decode_detect", "tritier.graph.load_model", "tritier.workflow"):
        assert f'id="{name}"' in page or f'id="module-{name}"' in page


def test_nothing_is_asked_of_other_sites(site: Path) -> None:
    """Scripts, styles and fonts come with the pages."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', text) == []


def test_pages_that_no_list_names_follow_by_themselves() -> None:
    index = "# T\n\n- [x](no.md)\n\n## A\n\n- [One](one.md): text\n- [Two](sub/two.md)\n"
    pages = ["index", "one", "sub/two", "new", "decisions/002-b", "decisions/001-a"]
    assert navigation(index, pages) == {
        "A": ["one", "sub/two"],
        "Why it is so": ["decisions/001-a", "decisions/002-b"],
        "More": ["new"],
    }
