"""Option values from `tritier.yaml`: a key per command, below it a key per option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritier.documents import read_data
from tritier.errors import InputError, did_you_mean

DEFAULT_FILE = Path("tritier.yaml")


def option_defaults(path: Path, root: Any) -> dict[str, Any]:
    """The file's content as click's `default_map`.

    Options are written as on the command line, without the dashes before them. Raises InputError
    with all unknown commands and options, with suggestions.
    """
    data = read_data(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError("is not a mapping of commands to options", str(path))
    faults: list[str] = []
    defaults = _of_group(data, root, "", faults)
    if faults:
        raise InputError(faults, str(path))
    return defaults


# Groups and commands are typed Any: click's classes come from click itself or, in newer versions of
# typer, from a copy inside typer.


def _of_group(data: dict[Any, Any], group: Any, prefix: str, faults: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        where = f"{prefix}{key}"
        command = group.commands.get(str(key))
        if command is None:
            known = sorted(group.commands)
            hint = did_you_mean(str(key), known)
            faults.append(f"{where}: unknown command{hint}; known are {', '.join(known)}")
        elif not isinstance(value, dict):
            faults.append(f"{where}: is not a mapping of options to values")
        elif hasattr(command, "commands"):
            found[str(key)] = _of_group(value, command, f"{where}.", faults)
        else:
            found[str(key)] = _of_command(value, command, f"{where}.", faults)
    return found


def _of_command(
    data: dict[Any, Any], command: Any, prefix: str, faults: list[str]
) -> dict[str, Any]:
    options = {
        name.lstrip("-"): parameter.name
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
        if name.startswith("--")
    }
    found: dict[str, Any] = {}
    for key, value in data.items():
        target = options.get(str(key))
        if target is None:
            known = sorted(set(options) - {"help"})
            hint = did_you_mean(str(key), known)
            faults.append(f"{prefix}{key}: unknown option{hint}; known are {', '.join(known)}")
        else:
            found[target] = value
    return found
