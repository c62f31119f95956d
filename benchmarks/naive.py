"""The obvious way to forward a tensor, to compare with: an ensemble with an asyncio proxy.

The proxy is what a first version looks like: one `tritonclient.grpc.aio` client in an event loop of
its own thread, tensors in and out by tritonclient.
"""

from __future__ import annotations

import json

from tritier.deployment.client import TritonServer
from tritier.documents import Plan

ENSEMBLE = "naive"
_PROXY = """
import asyncio
import threading

import triton_python_backend_utils as pb_utils
import tritonclient.grpc.aio as triton


class TritonPythonModel:
    def initialize(self, args):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self.connect(), self.loop).result()

    async def connect(self):
        self.client = triton.InferenceServerClient("{url}")

    def execute(self, requests):
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "{tensor}").as_numpy()
            sender = request.get_response_sender()
            asyncio.run_coroutine_threadsafe(self.call(array, sender), self.loop)

    async def call(self, array, sender):
        item = triton.InferInput("{tensor}", list(array.shape), "FP32")
        item.set_data_from_numpy(array)
        result = await self.client.infer("{model}", [item])
        answer = pb_utils.Tensor("{answer}", result.as_numpy("{answer}"))
        sender.send(
            pb_utils.InferenceResponse([answer]),
            flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        )
"""


def load_naive(device: TritonServer, edge_url: str, plan: Plan, elements: int) -> None:
    """Load the ensemble over the plan's own first component and a naive proxy of its second."""
    first, second = plan.components
    prefix = f"{plan.model.name}__{plan.id}__"
    tensor, answer, given = first.outputs[0], second.outputs[0], first.inputs[0]
    text = _PROXY.format(url=edge_url, tensor=tensor, answer=answer, model=prefix + second.id)
    proxy = {
        "name": f"{ENSEMBLE}_proxy",
        "backend": "python",
        "input": [_float(tensor, elements)],
        "output": [_float(answer, 1)],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    ensemble = {
        "name": ENSEMBLE,
        "platform": "ensemble",
        "input": [_float("x", 1)],
        "output": [_float("z", 1)],
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": prefix + first.id,
                    "model_version": -1,
                    "input_map": {given: "x"},
                    "output_map": {tensor: "y"},
                },
                {
                    "model_name": proxy["name"],
                    "model_version": -1,
                    "input_map": {tensor: "y"},
                    "output_map": {answer: "z"},
                },
            ]
        },
    }
    device.load(str(proxy["name"]), json.dumps(proxy), {"file:1/model.py": text.encode()})
    device.load(ENSEMBLE, json.dumps(ensemble), {"file:1/.keep": b""})


def _float(name: str, elements: int) -> dict[str, object]:
    return {"name": name, "data_type": "TYPE_FP32", "dims": [elements]}
