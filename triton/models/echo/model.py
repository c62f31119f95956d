"""Computes nothing: takes `payload` and returns `count` bytes.

What a request to it takes besides what Triton counts as its own is the connection of who asks.
"""

import numpy as np
import triton_python_backend_utils as pb_utils

_MOST_BYTES = 1 << 30


class TritonPythonModel:
    _made = np.zeros(0, np.uint8)

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        count = int(pb_utils.get_input_tensor_by_name(request, "count").as_numpy()[0])
        if not 1 <= count <= _MOST_BYTES:
            error = pb_utils.TritonError(f"count is {count}: allowed are 1 to {_MOST_BYTES}")
            return pb_utils.InferenceResponse(output_tensors=[], error=error)
        if count != len(self._made):
            self._made = np.zeros(count, np.uint8)
        return pb_utils.InferenceResponse([pb_utils.Tensor("made", self._made)])
