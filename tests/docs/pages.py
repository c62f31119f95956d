"""The Markdown pages as data: links, anchors of headings, blocks of commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {"console", "sh", "bash", "shell"}
_MARK = re.compile(r"<!--\s*not run\s*:?(?P<why>.*?)-->", re.DOTALL)
_PROMPT = re.compile(r"(?:[a-z]+)?\$ ")


@dataclass(frozen=True)
class Block:
    """A fenced block of commands."""

    page: str  # path relative to the checkout
    line: int  # of the fence, from 1
    language: str
    text: str
    marked: bool  # `<!-- not run: why -->` stands before it
    why: str  # as it stands there, may be empty

    @property
    def where(self) -> str:
        """For messages: `docs/load.md:8`."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Command lines, those that go on over several lines as one text with line ends."""
        found: list[list[str]] = []
        going_on = False
        for line in self.text.splitlines():
            prompt = _PROMPT.match(line) if self.language == "console" else None
            if going_on:
                found[-1].append(line)
            elif prompt:
                found.append([line[prompt.end() :]])
            elif self.language != "console" and line.strip():
                found.append([line])
            else:
                continue  # output, or an empty line
            going_on = goes_on(found[-1])
        return ["\n".join(lines) for lines in found]


def goes_on(lines: list[str]) -> bool:
    """Whether a command has more lines: a backslash at the end, or a brace that is still open."""
    opened = sum(line.rstrip().endswith("{") for line in lines)
    closed = sum(line.strip() == "}" for line in lines)
    return lines[-1].endswith("\\") or opened > closed


def pages() -> list[str]:
    """All pages for users, relative to the checkout."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "examples").glob("*/README.md")]
    found += (ROOT / "docs").rglob("*.md")
    return sorted(str(path.relative_to(ROOT)) for path in found)


@cache
def tokens(page: str) -> list[Token]:
    """What markdown-it makes of a page."""
    parser = MarkdownIt("commonmark").enable("table")
    return parser.parse((ROOT / page).read_text(encoding="utf-8"))


def blocks(page: str) -> list[Block]:
    """Blocks of commands, in order; a mark belongs to the block right after it."""
    found, mark = [], None
    for token in tokens(page):
        if token.type == "fence" and token.info.strip() in SHELLS:
            line = token.map[0] + 1 if token.map else 0
            why = mark["why"].strip() if mark else ""
            language = token.info.strip()
            found.append(Block(page, line, language, token.content, mark is not None, why))
        mark = _MARK.search(token.content) if token.type == "html_block" else None
    return found


def marks(page: str) -> int:
    """How many marks `not run` the page has, before a block or not."""
    return len(_MARK.findall((ROOT / page).read_text(encoding="utf-8")))


def links(page: str) -> Iterator[str]:
    """Targets of links and images."""
    for token in _inline(page):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


def inline_code(page: str) -> Iterator[str]:
    """Texts between backticks."""
    for token in _inline(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def anchors(page: str) -> set[str]:
    """Anchors of a page's headings, as forges make them."""
    found: dict[str, int] = {}
    names = set()
    listed = tokens(page)
    for before, token in pairwise(listed):
        if before.type == "heading_open":
            name = slug("".join(child.content for child in token.children or ()))
            count = found.get(name, 0)
            found[name] = count + 1
            names.add(f"{name}-{count}" if count else name)
    return names


def slug(heading: str) -> str:
    """Lower case, without punctuation, blanks as dashes."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _inline(page: str) -> Iterator[Token]:
    return (token for token in tokens(page) if token.type == "inline")
