"""The modules of `triton/models/agent`, which are no package: they import each other by bare names.

Also models that the tests of the agent share, as text.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from onnx import parser

from tritier.resources import triton_dir

_FOLDERS = [triton_dir() / "models" / "agent", triton_dir() / "shared"]
_NAMES = {path.stem for folder in _FOLDERS for path in folder.glob("*.py")}


def load_agent(*names: str) -> list[Any]:
    """Those modules, of one set: what they import of each other is the same module.

    Their names mean something else, or nothing, to other tests: `sys.modules` and `sys.path` are
    left as they were.
    """
    others = {name: sys.modules.pop(name) for name in _NAMES & set(sys.modules)}
    path = list(sys.path)
    sys.path[:0] = [str(folder) for folder in _FOLDERS]
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path[:] = path
        for name in _NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(others)


def model_bytes(text: str) -> bytes:
    """An ONNX model of its text, without the first line: opset 17."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    return bytes(model.SerializeToString())


SMALL = """
small (float[1,2,8,8] x) => (float[1,1,6,6] y)
<float[1,2,3,3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
{ c = Conv (x, w)  y = Sin (c) }
"""
SMALL_INPUTS = {"x": {"datatype": "FP32", "shape": [1, 2, 8, 8]}}

ENDLESS = """
endless (float[1] x) => (float[1] y)
<int64 times = {9223372036854775807}, bool go = {1}>
{
    y = Loop (times, go, x) <body = body (int64 i, bool on, float[1] a) => (bool go_on, float[1] b)
        { go_on = Identity (on)  b = Sin (a) }>
}
"""
ENDLESS_INPUTS = {"x": {"datatype": "FP32", "shape": [1]}}

# 4 TiB of zeros.
HUGE = """
huge (int64[1] x) => (float[n] y)
{ y = ConstantOfShape (x) }
"""
HUGE_INPUTS = {"x": {"datatype": "INT64", "shape": [1], "values": [2**40]}}
