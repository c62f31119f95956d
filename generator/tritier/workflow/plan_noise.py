"""The noise of a whole plan: its quantized layers and the codecs of its wires, really run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from tritier.divider import WholeModel
from tritier.documents import Plan
from tritier.graph import LoadedModel
from tritier.noise import Metric
from tritier.workflow.verify import realised_whole

Arrays = Mapping[str, npt.NDArray[np.generic]]


def plan_noise(
    plan: Plan, model: LoadedModel, inputs: Iterable[Arrays], metric: Metric
) -> dict[str, float]:
    """Output (or the name of a metric of the user) -> noise of the plan over the inputs, against
    the float model.

    The uncut model is run with the plan's layers and codecs, as it is served. Raises InputError
    when ONNX Runtime refuses the inputs.
    """
    coded = realised_whole(plan, model, "all")
    whole = WholeModel(model.proto.SerializeToString(), "all")
    return metric.over((whole.run(arrays), coded.run(arrays)) for arrays in inputs)
