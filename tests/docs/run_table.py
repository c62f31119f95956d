"""Which blocks of the pages are run, and in what; and the page that says so."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.docs.pages import Block, blocks, pages

_ESPCN = (
    "tritier plan espcn_x3.onnx --assignment assignment.yaml --servers servers.yaml",
    "tritier generate plan.json --model espcn_x3.onnx -o repos/",
)
_LAB = "tritier lab up --servers servers.yaml"
_LAB_OF_REPOS = "tritier lab up --servers servers.yaml --repos repos/"
_RANGES = "tritier ranges model.onnx --images photos/ranges --preprocessing yolo -o ranges.json"
_NOISE = (
    "tritier noise model.onnx --images photos/noise --preprocessing yolo"
    " --ranges ranges.json -o noise.json"
)
_PLANNED = (
    "tritier plan model.onnx --servers servers.yaml --timing profiles/model"
    " --network network.json --report report.json -o plan.json"
)


@dataclass(frozen=True)
class Run:
    """How a page is run: commands before its first block, and commands of it that are left out
    although no mark says so, by how they begin, each with the reason."""

    before: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


# Pages that need more than the stage has, or that can't carry marks. All others are run as well.
RUNS = {
    "README.md": Run(
        left_out={
            "make ": "the demo and the tests themselves",
            "pip install": "installs",
            "tritier plan model.onnx": "the reader's own model",
            "tritier generate family": "the reader's own model",
        }
    ),
    "docs/costs.md": Run((_PLANNED,)),
    "docs/doctor.md": Run(_ESPCN),
    "docs/export.md": Run((_PLANNED,)),
    "docs/export_kubernetes.md": Run((_PLANNED,)),
    "docs/family.md": Run((_RANGES, _NOISE, _LAB)),
    "docs/monitor.md": Run((_LAB,)),
    "docs/noise.md": Run((_RANGES,)),
    "docs/observability.md": Run(_ESPCN),
    "docs/operations.md": Run((*_ESPCN, _LAB_OF_REPOS)),
    "docs/planner.md": Run((_LAB,)),
    "docs/reliability.md": Run((_LAB,)),
    "docs/servers.md": Run((_LAB,)),
}
# Examples of --help, of which the page says itself that they are not run.
GENERATED = frozenset({"docs/commands.md"})
_HEAD = """\
# What of these pages is run

Made by `make regen` from the pages. Every command of Tritier in every page, in blocks and in the
text, is checked against the command line: it exists, with all its options. Beyond that a test
(`tests/docs/test_docs_run.py`) types the blocks that are not listed under *Not run*, page by page,
each page in a folder of its own, and every command must end with exit code 0. What is printed in
the pages is not compared: it was taken from other runs. Of the blocks of Python only the one in
[python_api.md](python_api.md) is run.

`espcn_x3.onnx` and the examples are those of the repository. `model.onnx`, `yolo11n.onnx` and
`detector.onnx` are small stand-ins with drawn weights, `photos/` holds pictures of soft noise,
`profiles/` and `network.json` are written by hand.
"""


def why_not(block: Block) -> str | None:
    """Why a block as a whole is not run; None if it is."""
    if block.marked:
        return block.why
    if not commands_of(block):
        return "; ".join(dict.fromkeys(_reasons(block)))
    return None


def commands_of(block: Block) -> list[str]:
    """The commands of a block that are run, if it is."""
    begins = tuple(RUNS.get(block.page, Run()).left_out)
    return [command for command in block.commands if not (begins and command.startswith(begins))]


def _reasons(block: Block) -> list[str]:
    table = RUNS.get(block.page, Run()).left_out
    return [why for command in block.commands for start, why in table.items()
            if command.startswith(start)]  # fmt: skip


def what_is_run() -> str:
    """A page with a row for each page that has blocks, and one for each block that is not run."""
    rows, lost, total, count = [], [], 0, 0
    for page in [page for page in pages() if page not in GENERATED]:
        found = blocks(page)
        run = [block for block in found if why_not(block) is None]
        total, count = total + len(found), count + len(run)
        if found:
            rows.append(f"| {_name(page)} | {len(run)} | {len(found) - len(run)} |")
        lost += [(page, block.commands[0] if block.commands else "", why)
                 for block in found if (why := why_not(block)) is not None]  # fmt: skip
    table = "\n".join(["| page | blocks run | not run |", "|---|---:|---:|", *rows])
    why = "\n".join(
        ["| page | begins with | why not run |", "|---|---|---|"]
        + [f"| {_name(page)} | `{_short(first)}` | {reason} |" for page, first, reason in lost]
    )
    return (
        f"{_HEAD}\n{count} of {total} blocks are run.\n\n{table}\n\n## Not run\n\n"
        f"The examples of [commands.md](commands.md) come from `--help` and are parsed only.\n\n"
        f"{why}\n"
    )


def _name(page: str) -> str:
    target = page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"
    return f"[{page.removeprefix('docs/')}]({target})"


def _short(command: str) -> str:
    """Its first words, fit for a cell."""
    words = command.splitlines()[0].rstrip(" \\").split()[:4]
    return " ".join(words).replace("|", "").replace("`", "")
