"""The conformance table: `python -m tests.conformance.table --cuts 500`.

Exit code 1 when an outcome is another than expected; a cut that is not equal ends it at once.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

from tests.conformance.cases import converted_case, shipped_case, shipped_names
from tests.conformance.cuts import Result, try_model
from tests.conformance.drawn import ARCHITECTURES, drawn_case
from tests.conformance.expected import OLD_OPSET, Expectation, expectation, surprises

_EQUAL = Expectation("equal", movable=True)
_HEAD = "| model | layers | outcome | cuts | equal | refused | moved whole | reason |"


def main() -> int:
    """Try everything, print the table."""
    parser = argparse.ArgumentParser(description="Cut every model that onnx ships.")
    parser.add_argument("--cuts", type=int, default=45, help="of nets with drawn weights, in all")
    parser.add_argument("--light-cuts", type=int, default=3, help="of each light model as shipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    began = time.monotonic()
    rows = _try_all(options.cuts, options.light_cuts, options.seed)
    text = _table(rows, time.monotonic() - began)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return int(any(surprises(result, expected) for result, expected in rows))


def _try_all(cuts: int, light_cuts: int, seed: int) -> list[tuple[Result, Expectation]]:
    rows = []
    for name in shipped_names():
        rows.append((try_model(shipped_case(name), light_cuts, seed), expectation(name)))
        _progress(rows[-1][0])
    for name in OLD_OPSET:
        rows.append((try_model(converted_case(name), light_cuts, seed), _EQUAL))
    share, rest = divmod(cuts, len(ARCHITECTURES))
    for index, name in enumerate(ARCHITECTURES):
        began = time.monotonic()
        rows.append((try_model(drawn_case(name), share + (index < rest), seed), _EQUAL))
        _progress(rows[-1][0], f" in {time.monotonic() - began:.0f} s")
    return rows


def _progress(result: Result, more: str = "") -> None:
    if result.layers > 1:
        sys.stderr.write(f"{result.name}: {result.outcome}, {result.cuts} cuts{more}\n")


def _table(rows: list[tuple[Result, Expectation]], seconds: float) -> str:
    results = [result for result, _ in rows]
    shipped = results[: len(shipped_names())]
    outcomes = Counter(result.outcome for result in shipped)
    drawn = results[-len(ARCHITECTURES) :]
    quiet = [r for r in shipped if r.layers < 2 and not r.stuck]
    lines = [
        f"onnx {onnx.__version__}, ONNX Runtime {ort.__version__}, graph optimisations disabled",
        "",
        _HEAD,
        "|---" * 8 + "|",
        *(_row(result) for result in results if result not in quiet),
        "",
        f"- models that onnx ships: {len(shipped)}: "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())),
        f"- of one layer, and equal on each of three servers: {len(quiet)} (not in the table)",
        f"- cuts tried: {sum(r.cuts for r in results)}: {sum(r.equal for r in results)} equal, "
        f"{sum(r.refused for r in results)} refused, 0 different",
        f"- of these, of nets with drawn weights: {sum(r.cuts for r in drawn)}, "
        f"{sum(r.equal for r in drawn)} equal, over {len(drawn)} architectures",
        f"- {seconds:.0f} s",
    ]
    lines += [f"- SURPRISE: {text}" for row in rows for text in surprises(*row)]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> str:
    reasons = "; ".join(sorted({_short(reason) for reason in result.reasons}))
    tried = result.moved + result.stuck
    moved = f"{result.moved} of {tried}" if tried else "not tried"
    cells = (result.name, result.layers, result.outcome, result.cuts, result.equal)
    return "| " + " | ".join(map(str, (*cells, result.refused, moved, reasons))) + " |"


def _short(reason: str) -> str:
    """The telling part of a reason, without the paths of this machine."""
    reason = re.sub(r"Load model from \S+ failed:", "", reason)
    return reason.split(": assign ")[0].split("; only tensors of ")[0].replace("\n", " ")[:160]


if __name__ == "__main__":
    sys.exit(main())
