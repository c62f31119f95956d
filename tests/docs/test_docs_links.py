"""Links among the pages, to files of the repository and to headings lead somewhere. Nothing is
asked of the network: of links to other sites only the form is checked."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs import pages as pages_module
from tests.docs.pages import ROOT, anchors, links, pages


def fault_of(page: str, target: str) -> str | None:
    """What is wrong with a link, or None."""
    parts = urlsplit(target)
    if parts.scheme:
        good = parts.scheme in {"http", "https"} and "." in parts.netloc and not parts.username
        return None if good and target.isascii() else f"{page}: {target}: is no address of a site"
    path = (ROOT / page).parent / unquote(parts.path) if parts.path else ROOT / page
    if parts.path.startswith("/") or not path.resolve().is_relative_to(ROOT):
        return f"{page}: {target}: leaves the repository"
    if not path.exists():
        return f"{page}: {target}: there is no such file"
    if parts.fragment and parts.fragment not in _anchors(path):
        return f"{page}: {target}: there is no such heading"
    return None


def _anchors(path: Path) -> set[str]:
    name = os.path.relpath(path.resolve(), ROOT)
    return anchors(name) if path.suffix == ".md" else set()


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    faults = [fault for target in links(page) if (fault := fault_of(page, target))]
    assert faults == []


def test_links_are_found() -> None:
    assert sum(1 for page in pages() for _ in links(page)) > 200


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("planner.md", ""),
        ("planner.md#how-it-is-solved", ""),
        ("schemas/plan.json", ""),
        ("../examples/yolo11/README.md#split-and-serve", ""),
        ("https://example.org/a?b#c", ""),
        ("planer.md", "there is no such file"),
        ("planner.md#how-it-was-solved", "there is no such heading"),
        ("../../elsewhere.md", "leaves the repository"),
        ("/etc/hosts", "leaves the repository"),
        ("https://example/", "is no address of a site"),
        ("ftp://example.org/a", "is no address of a site"),
        ("https://me:secret@example.org/", "is no address of a site"),
    ],
)
def test_a_broken_link_is_found(target: str, fault: str) -> None:
    found = fault_of("docs/page.md", target)
    assert (found or "").endswith(fault)
    assert bool(found) == bool(fault)


def test_headings_get_the_anchors_of_forges() -> None:
    assert pages_module.slug("Links of a lab") == "links-of-a-lab"
    assert pages_module.slug("tritier.yaml") == "tritieryaml"
    assert pages_module.slug("int8, and `fp16`: why?") == "int8-and-fp16-why"
