"""What turns plain Markdown pages into a site: navigation from the lists in index.md, and links to
what lies in the repository beside the pages.

`index.md` has no directives, so that it reads well wherever Markdown is shown. Its sections with
lists of pages become the captions and entries of the navigation; pages that it does not name
follow by themselves, so that no page is lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

_SECTION = re.compile(r"## (?P<title>.+)")
_ENTRY = re.compile(r"- \[[^\]]+\]\((?P<page>[^)#:]+)\.md\)")
# Folder of the pages -> section to which those that index.md does not name are added.
_FOLDERS = {"decisions": "Why it is so", "reports": "Measured"}
_OTHERS = "More"


def navigation(index: str, pages: Iterable[str]) -> dict[str, list[str]]:
    """Section -> names of its pages (no suffix): those that index.md lists, in its order, then the
    others, by name."""
    sections: dict[str, list[str]] = {}
    title = ""
    for line in index.splitlines():
        if found := _SECTION.fullmatch(line.strip()):
            title = found["title"]
        elif title and (found := _ENTRY.match(line)):
            sections.setdefault(title, []).append(found["page"])
    named = {page for listed in sections.values() for page in listed}
    for page in sorted(set(pages) - named - {"index"}):
        folder = page.partition("/")[0] if "/" in page else ""
        sections.setdefault(_FOLDERS.get(folder, _OTHERS), []).append(page)
    return sections


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Append hidden tables of contents to index.md, when Sphinx reads it."""
    if name != app.config.root_doc:
        return
    for title, pages in navigation(source[0], app.env.found_docs).items():
        entries = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n"


class RepositoryLinks(SphinxTransform):
    """Links out of the pages: folders of the repository, which a forge can show and a site can't,
    become text; Markdown files, which are no pages of the site, become files to download."""

    default_priority = 5

    def apply(self, **_: object) -> None:
        """Replace them; all else is left to be resolved, or to be warned of."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        for node in list(self.document.findall(addnodes.pending_xref)):
            target = here / str(node["reftarget"])
            file = target.with_name(f"{target.name}.md")
            if node.get("reftype") != "myst":
                continue
            if target.is_dir():
                node.replace_self(nodes.inline("", "", *node.children))
            elif node["refdomain"] == "doc" and self._is_no_page(file):
                name = os.path.relpath(file, here)
                link = addnodes.download_reference("", "", *node.children, reftarget=name)
                node.replace_self(link)

    def _is_no_page(self, file: Path) -> bool:
        root = Path(self.env.srcdir).resolve()
        return file.is_file() and not file.resolve().is_relative_to(root)


def _keep_code(*arguments: object) -> None:
    """In docstrings, what is indented after a line that ends in a colon is code: say so in the
    way of reStructuredText. The last argument has the lines and is changed."""
    lines = arguments[-1]
    assert isinstance(lines, list)
    for index, line in enumerate(lines[:-2]):
        ends = line.rstrip().endswith(":") and not line.rstrip().endswith("::")
        if ends and not lines[index + 1].strip() and lines[index + 2].startswith("    "):
            lines[index] = f"{line.rstrip()}:"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("autodoc-process-docstring", _keep_code)
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
