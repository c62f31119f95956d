"""The command line. It imports everything and nothing imports it; only it prints and exits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import tritier
from tritier.cli.bench import bench_command
from tritier.cli.calibrate import calibrate_command
from tritier.cli.capacity import capacity_command
from tritier.cli.common import DEFAULT_WORKSPACE, Workspace
from tritier.cli.compare import compare_command
from tritier.cli.cost import cost_command
from tritier.cli.demo import demo_command
from tritier.cli.deploy import deploy_command, undeploy_command
from tritier.cli.formats import formats_command
from tritier.cli.generate import generate_command
from tritier.cli.import_plan import import_plan_command
from tritier.cli.inspect import inspect_command
from tritier.cli.lab import lab_app
from tritier.cli.lab_link import link_command
from tritier.cli.load import load_command
from tritier.cli.monitor import monitor_command
from tritier.cli.noise import noise_command
from tritier.cli.output import say, show_text
from tritier.cli.plan import plan_command
from tritier.cli.pool import pool_app
from tritier.cli.prepare import prepare_command
from tritier.cli.profile import profile_command
from tritier.cli.ranges import ranges_command
from tritier.cli.report import report_command
from tritier.cli.rescale import rescale_command
from tritier.cli.servers import servers_app
from tritier.cli.settings import DEFAULT_FILE, option_defaults
from tritier.cli.sharing import share_command
from tritier.cli.verify import verify_command
from tritier.cli.watch import watch_command
from tritier.errors import TritierError, UsageError

__all__ = ["app", "main"]

# click's base class of usage errors, wherever this version of typer has it from.
_ClickException: Any = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
_INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended

app = typer.Typer(
    name="tritier",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "TRITIER", "help_option_names": ["-h", "--help"]},
)
app.command("prepare")(prepare_command)
app.command("inspect")(inspect_command)
app.command("ranges")(ranges_command)
app.command("rescale")(rescale_command)
app.command("plan")(plan_command)
app.command("import-plan")(import_plan_command)
app.command("generate")(generate_command)
app.command("verify")(verify_command)
app.add_typer(servers_app, name="servers")
app.command("monitor")(monitor_command)
app.command("profile")(profile_command)
app.command("formats")(formats_command)
app.command("noise")(noise_command)
lab_app.command("link")(link_command)
app.add_typer(lab_app, name="lab")
app.command("deploy")(deploy_command)
app.command("undeploy")(undeploy_command)
app.command("bench")(bench_command)
app.command("load")(load_command)
app.command("compare")(compare_command)
app.command("calibrate")(calibrate_command)
app.command("watch")(watch_command)
app.command("cost")(cost_command)
app.command("capacity")(capacity_command)
app.command("share")(share_command)
app.command("report")(report_command)
app.add_typer(pool_app, name="pool")
app.command("demo")(demo_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        show_text(tritier.__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    workspace: Annotated[
        Path, typer.Option("--workspace", help="Folder for pool, lab and logs.")
    ] = DEFAULT_WORKSPACE,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Option values (YAML); tritier.yaml if it exists."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Split one ONNX model across several Triton servers and serve it as one model.

    Every option can also be set in tritier.yaml (command, then option) and by an environment
    variable (TRITIER_<COMMAND>_<OPTION>). Exit codes: 0 done, 1 a check failed, 2 wrong usage,
    3 bad input, 4 a server failed, 5 no feasible plan.
    """
    context.obj = Workspace(workspace)
    path = config or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if path is not None:
        context.default_map = option_defaults(path, context.command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        result = app(args=arguments, standalone_mode=False)
    except TritierError as error:
        say(f"error: {error}")
        return error.exit_code
    except _ClickException as error:
        context = getattr(error, "ctx", None)
        message = error.format_message()
        if message.startswith("Usage:"):  # called without arguments: the help is the message
            say(message)
        else:
            hint = f"\nsee `{context.command_path} --help`" if context else ""
            say(f"error: {message}{hint}")
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return _INTERRUPTED
    return result if isinstance(result, int) else 0
