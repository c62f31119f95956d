"""How far outputs are from those of the float model, as a number for each input."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tritier.calibration import Arrays
from tritier.calibration.images import Array
from tritier.errors import InputError, did_you_mean
from tritier.files import sha256_bytes

# Plain data: it is stored, and summed up when all inputs are there.
Score = Any
_Between = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Metric:
    """`of_input(float outputs, quantized outputs, number of the input)` gives a score for each
    output; `combine` makes one number of the scores of all inputs: 0 if nothing changed, and more
    the more the outputs are damaged. Its power `power` is what layers add up in."""

    name: str
    power: Literal[1, 2]
    of_input: Callable[[Arrays, Arrays, int], dict[str, Score]]
    combine: Callable[[Sequence[Score]], float]
    identity: str
    by_output: bool = True

    def over(self, pairs: Iterable[tuple[Arrays, Arrays]]) -> dict[str, float]:
        """Output -> noise over all inputs, of (float outputs, other outputs) of each in turn."""
        scores = [self.of_input(*pair, number) for number, pair in enumerate(pairs)]
        return {name: self.combine([score[name] for score in scores]) for name in scores[0]}


def built_in(name: str) -> Metric:
    """One of `METRICS`; raises InputError for another name."""
    if name not in METRICS:
        raise InputError(
            f"metric '{name}' is not known{did_you_mean(name, METRICS)}; allowed are "
            f"{', '.join(METRICS)}, and FILE.py:NAME for a function of yours"
        )
    between = METRICS[name]

    def of_input(reference: Arrays, outputs: Arrays, _number: int) -> dict[str, Score]:
        return {x: _checked(x, between, reference[x], outputs[x]) for x in reference}

    return Metric(name, 1 if name == "cosine" else 2, of_input, _mean, name)


def load_metric(text: str) -> Metric:
    """A built-in metric by its name, or FILE.py:NAME, a function of the user.

    The function gets the outputs of the float model and of the quantized one (mappings of names to
    arrays, not to be changed) and the number of the input from 0. It returns a number, or plain
    data if it has an attribute `combine`, a function that makes one number of what it returned for
    all inputs. An attribute `power` (1 or 2, default 2) says in which power layers add up. The file
    is run. Raises InputError when it can't be loaded.
    """
    path, colon, name = text.rpartition(":")
    if not colon:
        return built_in(text)
    function = _function(Path(path), name)
    own = getattr(function, "combine", None)
    power = getattr(function, "power", 2)
    if power not in (1, 2):
        raise InputError(f"{name}.power is {power}; allowed are 1 and 2", path)
    if own is not None and not callable(own):
        raise InputError(f"{name}.combine is {own!r}: a function is needed", path)

    def of_input(reference: Arrays, outputs: Arrays, number: int) -> dict[str, Score]:
        try:
            found = function(reference, outputs, number)
        except Exception as error:  # whatever code of a user raises
            raise InputError(f"{text} fails on input {number}: {_shown(error)}") from error
        return {name: _plain(found, text, any_data=own is not None)}

    def combine(scores: Sequence[Score]) -> float:
        try:
            return _noise((own or _mean)(scores), text)
        except InputError:
            raise
        except Exception as error:  # whatever code of a user raises
            raise InputError(f"{text}: its function `combine` fails: {_shown(error)}") from error

    identity = f"{name} {sha256_bytes(Path(path).read_bytes())}"
    return Metric(text, 1 if power == 1 else 2, of_input, combine, identity, by_output=False)


def _function(path: Path, name: str) -> Callable[..., Score]:
    spec = importlib.util.spec_from_file_location("tritier_metric", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError("is no Python file: give a metric as FILE.py:NAME", str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever code of a user raises
        raise InputError(f"can't be run: {_shown(error)}", str(path)) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"has no function '{name}'", str(path))
    found: Callable[..., Score] = function
    return found


def _plain(found: Any, metric: str, any_data: bool) -> Score:
    """A score as it comes back from where it is stored: of numbers, texts, lists and mappings."""
    if isinstance(found, np.generic | np.ndarray):
        found = found.tolist()
    if not any_data:
        if isinstance(found, int | float):
            return float(found)
        raise InputError(
            f"{metric} returns {_kind(found)}: without a function `combine` it returns a number"
        )
    try:
        return json.loads(json.dumps(found, default=_number))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{metric} returns what can't be stored ({error}): numbers, texts, lists and mappings "
            "of texts are allowed"
        ) from None


def _number(item: Any) -> Any:
    if isinstance(item, np.generic | np.ndarray):
        return item.tolist()
    raise TypeError(_kind(item))


def _noise(found: Any, metric: str) -> float:
    """What a function of the user combines scores to."""
    if isinstance(found, np.generic | np.ndarray):
        found = found.tolist()
    if not isinstance(found, int | float):
        raise InputError(f"{metric} gives {_kind(found)} for all inputs: a number is needed")
    if not (math.isfinite(found) and found >= 0):
        raise InputError(
            f"{metric} gives {found} for all inputs: a finite number is needed, 0 if nothing "
            "changed, and more the more the outputs are damaged"
        )
    return float(found)


def _kind(item: Any) -> str:
    return "nothing" if item is None else f"a value of type {type(item).__name__}"


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _checked(name: str, between: _Between, reference: Array, output: Array) -> float:
    if reference.shape != output.shape:
        raise InputError(
            f"output '{name}' has the shape {list(output.shape)} with quantized layers and "
            f"{list(reference.shape)} without: choose other outputs with --model-output, or give a "
            "metric of your own that compares the two"
        )
    if reference.dtype.kind not in "fiub":
        raise InputError(
            f"output '{name}' holds {reference.dtype}, no numbers: choose others with "
            "--model-output"
        )
    if not reference.size:
        return 0.0
    if reference.dtype not in (np.float32, np.float64):  # others overflow, or can't be subtracted
        return between(reference.astype(np.float64), output.astype(np.float64))
    return between(reference, output)


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def _mean_abs(reference: Any, output: Any) -> float:
    return float(np.abs(reference - output).mean(dtype=np.float64))


def _max_abs(reference: Any, output: Any) -> float:
    return float(np.abs(reference - output).max())


def _noise_to_signal(reference: Any, output: Any) -> float:
    """Root of noise energy over signal energy; -20 log10 of it is the SNR in dB."""
    noise = np.square(reference - output, dtype=np.float64).sum()
    signal = np.square(reference, dtype=np.float64).sum()
    return float(np.sqrt(noise / signal)) if signal else (math.inf if noise else 0.0)


def _cosine_distance(reference: Any, output: Any) -> float:
    a, b = reference.ravel().astype(np.float64), output.ravel().astype(np.float64)
    if np.array_equal(a, b):
        return 0.0
    # Sums of numpy, not of BLAS, whose last bits hang on how many threads it has.
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return max(1 - float((a * b).sum()) / size, 0.0) if size else 1.0


METRICS: Mapping[str, _Between] = {
    "mean_abs": _mean_abs,
    "max_abs": _max_abs,
    "snr": _noise_to_signal,
    "cosine": _cosine_distance,  # grows with the square of what moves the outputs
}
