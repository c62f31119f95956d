"""A request whose tensors cross by shared memory, for `serving_overhead`: what an app on the
entry's own machine can do with plain tritonclient."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from tritonclient.utils import shared_memory as shm

from benchmarks.lab_runs import Request
from tritier.divider import Arrays


class SharedRequest:
    """One request of an app, over a warm connection of its own, with a region for what is sent and
    one for what comes back. Regions are unregistered and removed when it is closed."""

    def __init__(self, url: str, model: str, arrays: Arrays) -> None:
        # Asked once without regions: then the sizes of outputs are known.
        first = Request(url, model, arrays)
        try:
            first()
            self.answer: dict[str, Any] = dict(first.answer)
        finally:
            first.close()
        self._client = triton.InferenceServerClient(url)
        self._model, self._arrays = model, dict(arrays)
        self._regions: dict[str, Any] = {}
        try:
            self._sent = self._region("sent", sum(x.nbytes for x in self._arrays.values()))
            self._back = self._region("back", sum(x.nbytes for x in self.answer.values()))
        except BaseException:
            self.close()
            raise

    def _region(self, kind: str, size: int) -> str:
        name = f"tritier_overhead_{os.getpid()}_{id(self):x}_{kind}"
        self._regions[name] = shm.create_shared_memory_region(name, f"/{name}", size)
        self._client.register_system_shared_memory(name, f"/{name}", size)
        return name

    def __call__(self) -> float:
        """Milliseconds from arrays to arrays: both copies, into and out of the regions, count."""
        started = time.perf_counter()
        inputs, offset = [], 0
        for name, array in self._arrays.items():
            shm.set_shared_memory_region(self._regions[self._sent], [array], offset)
            item = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            item.set_shared_memory(self._sent, array.nbytes, offset)
            inputs.append(item)
            offset += array.nbytes
        outputs, offset = [], 0
        for name, before in self.answer.items():
            asked = triton.InferRequestedOutput(name)
            asked.set_shared_memory(self._back, before.nbytes, offset)
            outputs.append(asked)
            offset += before.nbytes
        result = self._client.infer(self._model, inputs, outputs=outputs)
        self.answer = self._read(result)
        return (time.perf_counter() - started) * 1000.0

    def _read(self, result: triton.InferResult) -> dict[str, Any]:
        found, offset = {}, 0
        for name, before in self.answer.items():
            shape = tuple(result.get_output(name).shape)
            assert shape == before.shape, f"output '{name}' changed its shape"
            region = self._regions[self._back]
            view = shm.get_contents_as_numpy(region, before.dtype, shape, offset)
            found[name] = view.copy()  # the region is written again by the next request
            offset += before.nbytes
        return found

    def close(self) -> None:
        """Unregister and remove the regions, and close the connection."""
        for name, region in self._regions.items():
            with suppress(InferenceServerException):
                self._client.unregister_system_shared_memory(name)
            shm.destroy_shared_memory_region(region)
        self._regions = {}
        self._client.close()
