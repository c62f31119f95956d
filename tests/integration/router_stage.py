"""A router over scripted plans on a real Triton: each plan computes y = 2x + 1 and z = -x, or does
what a file says instead.

Nothing of Triton is replaced: a plan is an ensemble with one step, as generated ones are, whose
model fails, waits or hangs as the file says. The uncut model is such a model without an ensemble.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton

from tritier.deployment.lab import Lab
from tritier.documents import LabState, ServersSpec
from tritier.resources import triton_dir

Array = npt.NDArray[np.float32]
ROUTER = "m"
_SCRIPTED = """
import json, os, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.path = json.loads(args["model_config"])["parameters"]["control"]["string_value"]
        with open(self.path + ".pid", "w") as file:
            file.write(str(os.getpid()))

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            threading.Thread(target=self.answer, args=(request, sender), daemon=True).start()

    def answer(self, request, sender):
        with open(self.path) as file:
            do = json.load(file)
        with open(self.path + ".seen", "a") as file:
            seen = [json.loads(request.parameters()), request.timeout()]
            file.write(json.dumps(seen) + "\\n")
        time.sleep(do.get("seconds", 0))
        if do.get("error"):
            code = getattr(pb_utils.TritonError, do.get("code", "UNAVAILABLE"))
            error = pb_utils.TritonError(do["error"], code)
            response = pb_utils.InferenceResponse(output_tensors=[], error=error)
        else:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            outputs = {"y": 2 * x + 1, "z": -x}
            names = request.requested_output_names()
            response = pb_utils.InferenceResponse(
                [pb_utils.Tensor(n, outputs[n].astype(np.float32)) for n in names]
            )
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
_TENSORS = """
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "z" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
UNAVAILABLE = "server 'edge', component c0, plan p, attempt 1: UNAVAILABLE after 2 ms: no route"


@dataclass
class Stage:
    """A lab with the scripted plans `p1`, `p2` (which need the edge) and `whole`."""

    lab: Lab
    state: LabState
    folder: Path
    plans: tuple[str, ...] = ("p1", "p2", "whole")
    clients: list[triton.InferenceServerClient] = field(default_factory=list)

    @classmethod
    def build(cls, folder: Path) -> Stage:
        """Start the servers and load the plans; `close` ends it."""
        servers: list[dict[str, object]] = [
            {"name": "device", "tier": "device", "entry": True},
            {"name": "edge", "tier": "edge"},
        ]
        (folder / "repos" / "device").mkdir(parents=True)
        lab = Lab(folder / "lab")
        state = lab.up(ServersSpec.from_data({"servers": servers}), folder / "repos")
        stage = cls(lab, state, folder)
        for plan in stage.plans:
            stage.script(plan)
            stage.write_plan(plan)
            stage.client.load_model(f"{ROUTER}__{plan}")
        return stage

    def close(self) -> None:
        """Stop everything."""
        for client in self.clients:
            client.close()
        self.lab.down()

    @property
    def url(self) -> str:
        """gRPC address of the entry."""
        return self.state.servers[0].grpc_url

    @property
    def client(self) -> triton.InferenceServerClient:
        """A client of the entry."""
        if not self.clients:
            self.clients.append(triton.InferenceServerClient(self.url))
        return self.clients[0]

    # -- plans ----------------------------------------------------------------------------------

    def script(self, plan: str, **do: Any) -> None:
        """What the plan does from now on: `seconds` to wait, an `error` (and its
        `code`) to answer with."""
        path = self._control(plan)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(do))
        fresh.replace(path)

    def well(self) -> None:
        """All plans answer at once."""
        for plan in self.plans:
            self.script(plan)

    def seen(self, plan: str) -> list[tuple[dict[str, Any], int]]:
        """(parameters, timeout) of each request that reached the plan since the last `forget`."""
        path = Path(f"{self._control(plan)}.seen")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def asked(self, plan: str) -> int:
        """How many requests of apps reached the plan since the last `forget`."""
        return sum("tritier_probe" not in parameters for parameters, _ in self.seen(plan))

    def forget(self) -> None:
        """Count from here."""
        for plan in self.plans:
            Path(f"{self._control(plan)}.seen").unlink(missing_ok=True)

    def pid(self, plan: str) -> int:
        """Process of the plan's model."""
        return int(Path(f"{self._control(plan)}.pid").read_text())

    def write_plan(self, plan: str) -> None:
        """The plan's model and, but for `whole`, the ensemble around it."""
        name = f"{ROUTER}__{plan}"
        step = name if plan == "whole" else f"{name}__c0"
        control = (
            f'parameters {{ key: "control" value {{ string_value: "{self._control(plan)}" }} }}'
        )
        instance = "instance_group [ { kind: KIND_CPU count: 1 } ]"
        config = f'name: "{step}" backend: "python" {_TENSORS} {instance} {control}'
        self._write(step, config, {"model.py": _SCRIPTED.encode()})
        if step != name:
            maps = "".join(
                f'{kind}_map {{ key: "{t}" value: "{t}" }} '
                for kind, t in (("input", "x"), ("output", "y"), ("output", "z"))
            )
            steps = f'step {{ model_name: "{step}" model_version: -1 {maps} }}'
            config = f'name: "{name}" platform: "ensemble" {_TENSORS}'
            self._write(name, f"{config} ensemble_scheduling {{ {steps} }}", {".keep": b""})

    # -- the router -----------------------------------------------------------------------------

    def load_router(self, classes: Mapping[str, Any] | None = None, **parameters: str) -> None:
        """(Re)load the router with these classes and parameters."""
        plans = {
            plan: {
                "model": f"{ROUTER}__{plan}",
                "servers": ["device"] if plan == "whole" else ["device", "edge"],
            }
            for plan in self.plans
        }
        every = {
            "family_id": "0badcafe",
            "plans": json.dumps(plans),
            "classes": json.dumps(classes or {"normal": {"plans": ["p1", "whole"]}}),
            "entry": "device",
            "deadline_ms": "5000",
            "probe_interval_ms": "200",
            **parameters,
        }
        write_router(self.folder / "repos" / "device", ROUTER, _TENSORS, every)
        self.client.load_model(ROUTER)

    def ask(
        self,
        *,
        outputs: Sequence[str] = ("y", "z"),
        seed: int = 0,
        size: int = 100,
        timeout_us: int | None = None,
        patience_s: float = 30,
        of: str | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> float:
        """Ask the router, as class `of`; the answer must be the whole model's. Returns the seconds
        it took."""
        x = np.random.default_rng(seed).random(size, dtype=np.float32)
        item = triton.InferInput("x", [size], "FP32")
        item.set_data_from_numpy(x)
        started = time.monotonic()
        answer = self.client.infer(
            ROUTER,
            [item],
            outputs=[triton.InferRequestedOutput(name) for name in outputs],
            timeout=timeout_us,
            client_timeout=patience_s,
            parameters={**(parameters or {}), **({"class": of} if of else {})} or None,
        )
        took_s = time.monotonic() - started
        expected = {"y": 2 * x + 1, "z": -x}
        for name in ("y", "z"):
            array = answer.as_numpy(name)
            if name in outputs:
                assert np.array_equal(array, expected[name])
            else:
                assert array is None
        return took_s

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric of the entry over all series with these labels."""
        with urllib.request.urlopen(f"http://{self.state.servers[0].metrics_url}/metrics") as page:
            lines = page.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        found = [x for x in lines if x.startswith(f"{name}{{") and all(w in x for w in wanted)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def log(self) -> str:
        """The entry's log."""
        return Path(self.state.servers[0].log_file).read_text(errors="replace")

    def _control(self, plan: str) -> Path:
        return self.folder / f"{plan}.json"

    def _write(self, name: str, config: str, files: Mapping[str, bytes]) -> None:
        folder = self.folder / "repos" / "device" / name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(config)
        for file, data in files.items():
            (folder / "1" / file).write_bytes(data)


def write_router(repository: Path, name: str, tensors: str, parameters: Mapping[str, str]) -> None:
    """The router's folder in a model repository."""
    folder = repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    for part in ("models/router", "shared"):
        for path in sorted((triton_dir() / part).glob("*.py")):
            shutil.copy(path, folder / "1" / path.name)
    items = "".join(
        f"parameters {{ key: {json.dumps(k)} value {{ string_value: {json.dumps(v)} }} }}\n"
        for k, v in parameters.items()
    )
    instance = "instance_group [ { kind: KIND_CPU count: 1 } ]"
    text = f'name: "{name}" backend: "python" {tensors} {instance}\n{items}'
    fresh = folder / "config.new"
    fresh.write_text(text)
    fresh.replace(folder / "config.pbtxt")
