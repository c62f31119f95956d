"""`tritier report`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import ForceFlag, JsonFlag, refuse_files
from tritier.cli.output import say, show_json
from tritier.errors import InputError
from tritier.files import write_file
from tritier.report import (
    Paths,
    build_report,
    collect,
    contents,
    render_markdown,
    render_page,
    render_pictures,
    require_pictures,
)
from tritier.report.parts import Report


def report_command(
    plan: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN-OR-FOLDER", help="plan.json, or the folder that `generate` wrote."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the page (HTML).")
    ] = Path("report.html"),
    model: Annotated[
        Path | None, typer.Option("--model", help="The ONNX model, for the graph of its layers.")
    ] = None,
    planning: Annotated[
        Path | None,
        typer.Option("--planning", help="Planning report, from `tritier plan --report`."),
    ] = None,
    timing: Annotated[
        list[Path] | None,
        typer.Option(
            "--timing", metavar="FILE-OR-FOLDER", help="Timing profiles, from `tritier profile`."
        ),
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", help="Measured links, from `tritier monitor`.")
    ] = None,
    noise: Annotated[
        Path | None, typer.Option("--noise", help="Noise model, from `tritier noise`.")
    ] = None,
    bench: Annotated[
        list[Path] | None,
        typer.Option(
            "--bench", help="Sweep, from `tritier bench`: of the plan, or of the whole model."
        ),
    ] = None,
    load: Annotated[
        list[Path] | None, typer.Option("--load", help="Load test, from `tritier load`.")
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option("--comparison", help="Predicted and measured, from `tritier compare`."),
    ] = None,
    cost: Annotated[
        list[Path] | None,
        typer.Option("--cost", help="From `tritier cost`, `tritier capacity` or `tritier share`."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Also write every figure there, as PNG and as SVG."
        ),
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Also write a summary in Markdown."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Of the page.")] = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write all that is known of a plan as one HTML page, which works without a network.

    Every option adds what its file holds; what is not given is left out, and the page says which
    command makes it. All files must be of the plan or of its model. Options for several files may
    be repeated.

    \b
    Example:
        tritier report plan.json --model model.onnx --planning planning.json \\
            --timing profiles/model --network network.json --bench bench.json -o report.html
        tritier report repos/ --comparison comparison.json --figures figures/ --markdown report.md
    """
    paths = Paths(
        plan, model, planning, tuple(timing or ()), network, noise, tuple(bench or ()),
        tuple(load or ()), comparison, tuple(cost or ()),
    )  # fmt: skip
    _check_targets(output, markdown_file, figures, force)
    if figures is not None:
        require_pictures()
    report = build_report(collect(paths), title)
    files = {output: render_page(report).encode()}
    if markdown_file is not None:
        files[markdown_file] = render_markdown(report, _relative(figures, markdown_file)).encode()
    if figures is not None:
        files |= {figures / name: content for name, content in render_pictures(report).items()}
    refuse_files(files, force)
    for path, content in files.items():
        write_file(path, content)
    _tell(report, output, markdown_file, figures)
    if json:
        show_json({"page": str(output), **contents(report)})


def _check_targets(
    output: Path, markdown_file: Path | None, figures: Path | None, force: bool
) -> None:
    """Raise InputError, before anything is done, for what exists and may not be replaced."""
    files = [path for path in (output, markdown_file) if path is not None]
    refuse_files(files, force)
    if len({path.absolute() for path in files}) < len(files):
        raise InputError(f"{output}: page and Markdown can't be the same file")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise InputError(f"{figures} is a file: give a folder")


def _relative(figures: Path | None, markdown_file: Path | None) -> str | None:
    """The folder of pictures as the Markdown file calls it."""
    if figures is None or markdown_file is None:
        return None
    return Path(os.path.relpath(figures, markdown_file.parent)).as_posix()


def _tell(report: Report, output: Path, markdown_file: Path | None, figures: Path | None) -> None:
    for item in report.missing:
        say(f"not in the report: {item.what}; made by `{item.command}`")
    if figures is not None:
        say(f"{len(report.figures)} figures drawn in {figures}, as PNG and SVG")
    if markdown_file is not None:
        say(f"summary written to {markdown_file}")
    say(f"report of {len(report.sections)} sections written to {output}")
