"""What commands share: options, and finding workspace, pool and lab."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tritier.deployment.lab import Lab
from tritier.documents import LabState, Server, ServersSpec
from tritier.errors import InputError, UsageError, did_you_mean
from tritier.pool import Pool

DEFAULT_WORKSPACE = Path(".tritier")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Do all checks, write and start nothing.")
]
ServersOption = Annotated[Path, typer.Option("--servers", help="The servers file (YAML or JSON).")]
ReposArgument = Annotated[
    Path, typer.Argument(metavar="REPOS", help="Folder that `tritier generate` wrote.")
]
EntryUrlOption = Annotated[
    str | None,
    typer.Option("--url", help="gRPC address of the entry; the lab's or the plan's if left out."),
]
DimOption = Annotated[
    list[str] | None,
    typer.Option("--dim", help="Size of a symbolic dimension, NAME=N; may be repeated."),
]

QuantizableOption = Annotated[
    int,
    typer.Option("--quantizable", metavar="N", min=0, help="How many layers may be quantized."),
]
QuantizeTypeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quantize-type",
        metavar="TYPE",
        help="Operator among whose layers these are, Conv if left out; may be repeated.",
    ),
]
QuantizeLayerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quantize-layer",
        metavar="NAME-OR-PATTERN",
        help="Layers that may be quantized, instead of those with the most FLOPs; may be repeated.",
    ),
]


class Workspace:
    """The folder where Tritier keeps what it knows between commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def pool(self) -> Pool:
        """The model pool."""
        return Pool(self.folder / "pool")

    @property
    def lab(self) -> Lab:
        """The lab."""
        return Lab(self.folder / "lab")

    def running_lab(self) -> LabState | None:
        """State of the lab if its servers run."""
        state = self.lab.state()
        if state is None or not all(self.lab.is_running(s.process) for s in state.servers):
            return None
        return state


def workspace(context: typer.Context) -> Workspace:
    """The workspace that the command line, the environment or the config file names."""
    found = context.find_object(Workspace)
    return found or Workspace(DEFAULT_WORKSPACE)


def load_servers(path: Path) -> ServersSpec:
    """Read a servers file."""
    return ServersSpec.load(path)


def named_servers(spec: ServersSpec, names: Sequence[str]) -> list[Server]:
    """The servers that --server names, in the order of the file; all if it names none."""
    unknown = [name for name in names if name not in spec.names]
    if unknown:
        raise InputError(
            [
                f"--server {name}: is not in the servers file{did_you_mean(name, spec.names)}; "
                f"known are {', '.join(spec.names)}"
                for name in unknown
            ]
        )
    return [item for item in spec.servers if not names or item.name in names]


def parse_dims(items: Iterable[str] | None) -> dict[str, int]:
    """`NAME=N` options as a mapping."""
    dims = {}
    for item in items or ():
        name, equals, text = item.partition("=")
        if not name or not equals or not text.isdigit() or int(text) < 1:
            raise UsageError(f"--dim {item}: allowed is NAME=N with a whole number N from 1")
        dims[name] = int(text)
    return dims


def refuse_files(paths: Collection[Path], force: bool) -> None:
    """Before anything is computed: raise InputError for all of the files to be written that are
    folders, and for all that exist, unless they may be replaced."""
    faults = [f"{path} is a folder: give a file" for path in paths if path.is_dir()]
    faults += [
        f"{path} exists: choose another name or pass --force to replace it"
        for path in paths
        if path.is_file() and not force
    ]
    if faults:
        raise InputError(faults)


def require_file(path: Path, what: str) -> Path:
    """The path, if it is a file."""
    if not path.is_file():
        raise InputError(f"no such file: give {what}", str(path))
    return path
