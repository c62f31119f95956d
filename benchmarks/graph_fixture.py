"""Make the fixture of layer graphs of YOLO11 from exported models.

    python -m benchmarks.graph_fixture FILE.onnx ... [-o FILE]

Only figures are taken over, as `tritier.graph` counts them: the source, the consumers and the bytes
of each tensor, floating-point operations and bytes of weights of each layer, and which layers may
be quantized. Weights don't matter: an export with random ones gives the same. A model is called as
its file, without what follows the first "_". `tests.conformance.graphs` reads what is written here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.planner_fixture import write_fixture
from tests.conformance.graphs import FIXTURE
from tritier.graph import load_model, profile_model


def figures(path: Path) -> dict[str, Any]:
    """What the fixture holds of a model; layers by their positions, the generator first and the
    receiver last."""
    profile = profile_model(load_model(path))
    names = ["generator", *(layer.name for layer in profile.layers), "receiver"]
    at = {name: index for index, name in enumerate(names)}
    return {
        "flows": [
            [at[tensor.source], sorted(at[name] for name in tensor.consumers), tensor.bytes]
            for tensor in profile.tensors
            if tensor.consumers
        ],
        "flops": [0, *(layer.flops for layer in profile.layers), 0],
        "weight_bytes": [0, *(layer.weight_bytes for layer in profile.layers), 0],
        "quantizable": [at[layer.name] for layer in profile.layers if layer.quantizable],
    }


def fixture(paths: Sequence[Path]) -> dict[str, Any]:
    """All of it."""
    return {path.stem.split("_")[0]: figures(path) for path in paths}


def main() -> None:
    """Read the command line and write the file, the same bytes each time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=FIXTURE)
    options = parser.parse_args()
    write_fixture(fixture(options.models), options.output)


if __name__ == "__main__":
    main()
