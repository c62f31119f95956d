"""What a load test asks, whom, and what the right answers are: all before the load begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.utils import InferenceServerException

from tritier.bench.environment import current
from tritier.bench.locust_job import (
    Allowed,
    Credentials,
    LoadJob,
    Questions,
    inputs_sha256,
)
from tritier.bench.locust_shapes import Level
from tritier.cli.common import Workspace, load_servers
from tritier.cli.inputs import find_inputs
from tritier.deployment.access import (
    Access,
    Address,
    access_of,
    address,
    connect,
    explained,
    lab_addresses,
    spec_address,
)
from tritier.deployment.metrics import metric_value
from tritier.divider import Arrays, check_against_model
from tritier.documents import WHOLE, Environment, LabState, Security, ServersSpec
from tritier.documents.load import LoadSettings, LoadShape
from tritier.errors import InputError, ServerError, UsageError, did_you_mean
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import Repositories
from tritier.workflow import gather_inputs, model_of_plan
from tritier.workflow.live import LiveCheck

_ASKED = ("entry", "whole", "router")  # kinds of models that apps may call
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Asked:
    """The model that is asked, and where. `plan_id` is None for a router; `metrics_url` is of the
    entry, if it is known; `others` are addresses of all known servers of the folder."""

    model: str
    plan_id: str | None
    address: Address
    metrics_url: str | None
    others: Mapping[str, str]


_RANDOM = 5  # inputs, if nobody says how many


@dataclass(frozen=True)
class InputOptions:
    """Where inputs come from: as many random ones (5 for None), or files."""

    count: int | None
    seed: int
    images: list[Path] | None = None
    preprocessing: str | None = None
    data: list[Path] | None = None
    limit: int | None = None
    dims: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Tls:
    """TLS without a servers file."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None


def find_asked(
    workspace: Workspace,
    repositories: Repositories,
    model: str,
    url: str | None,
    servers: Path | None,
    tls: Tls,
) -> Asked:
    """Which plan a model of the folder is and where it is served: by --url, the lab, the servers
    file, or the plan, the first that says it."""
    plan_id = _plan_of(repositories, model)
    lab = workspace.running_lab()
    spec = load_servers(servers) if servers else None
    known = _addresses(repositories, spec, lab)
    entry = repositories.plan.entry
    found = known.get(entry.name)
    if any((tls.ca, tls.cert, tls.key, tls.server_name)):
        found = _with_tls(entry.name, url, tls)
    elif url is not None:
        found = Address(url, access_of(found or url))
    if found is None:
        raise UsageError(
            f"the address of the entry '{entry.name}' is unknown: pass --url or --servers, or "
            "start the lab with `tritier lab up`"
        )
    metrics = {s.name: s.metrics_url for s in lab.servers}.get(entry.name) if lab else None
    if metrics is None and spec is not None and entry.name in spec.names:
        metrics = spec.server(entry.name).metrics_url
    return Asked(model, plan_id, found, metrics, {**known, entry.name: found})


def _plan_of(repositories: Repositories, model: str) -> str | None:
    known: dict[str, str | None] = {part.entry_model: part.plan.id for part in repositories.parts()}
    for item in repositories.manifest.models:
        if item.kind == "router":
            known[item.name] = None
        elif item.kind == "whole":
            known[item.name] = WHOLE
    if model not in known:
        raise UsageError(
            f"MODEL {model}: is no model that apps call in {repositories.path}"
            f"{did_you_mean(model, known)}; there are {', '.join(known)}"
        )
    return known[model]


def _addresses(
    repositories: Repositories, spec: ServersSpec | None, lab: LabState | None
) -> dict[str, Address]:
    found = dict(lab_addresses(lab))
    if spec is not None and repositories.plan.entry.name not in spec.names:
        raise UsageError(
            f"--servers has no server '{repositories.plan.entry.name}', the entry of the plan; it "
            f"has {', '.join(spec.names)}"
        )
    for server in repositories.plan.servers:
        own = spec_address(spec, server.name) if spec and server.name in spec.names else None
        if own is None and server.url is not None:
            own = Address(server.url, access_of(server.url))
        if own is not None:
            found.setdefault(server.name, own)
    return found


def _with_tls(server: str, url: str | None, tls: Tls) -> Address:
    if url is None or tls.ca is None:
        raise UsageError("--tls-cert, --tls-key and --tls-server-name need --tls-ca, and all --url")
    if (tls.cert is None) != (tls.key is None):
        raise UsageError("--tls-cert and --tls-key belong together: give both")
    security = Security(
        tls=True,
        ca=str(tls.ca.absolute()),
        client_cert=str(tls.cert.absolute()) if tls.cert else None,
        client_key=str(tls.key.absolute()) if tls.key else None,
        server_name=tls.server_name,
    )
    return address(server, url, security)


@dataclass(frozen=True)
class Subject:
    """The whole model, and the inputs with which it is compared."""

    model: LoadedModel
    inputs: Sequence[Arrays]
    from_where: str


def read_subject(
    workspace: Workspace,
    repositories: Repositories,
    path: Path | None,
    options: InputOptions,
    scratch: Path,
) -> Subject:
    """Read model and inputs; a model from the pool is written to `scratch`."""
    loaded = model_of_plan(repositories.plan, path, workspace.pool, scratch)
    check_against_model(repositories.plan, loaded.sha256, build_layer_graph(loaded.proto))
    if options.images or options.data:
        if options.count is not None or options.dims:
            raise UsageError("-n and --dim are for random inputs: leave them out, or the files")
        found, words = find_inputs(
            loaded, options.images, options.preprocessing, options.data, options.limit,
            options.seed,
        )  # fmt: skip
        return Subject(loaded, list(found), words)
    if options.preprocessing or options.limit:
        raise UsageError("--preprocessing and --limit are for --images or --data")
    count = _RANDOM if options.count is None else options.count
    inputs = gather_inputs(repositories.plan, count, options.seed, dims=options.dims)
    return Subject(loaded, inputs, f"{count} random inputs, seed {options.seed}")


def make_job(
    repositories: Repositories,
    asked: Asked,
    subject: Subject,
    classes: Mapping[str, int],
    shape: tuple[LoadShape, Sequence[Level]],
    options: tuple[int, int, float],
) -> tuple[LoadJob, Questions]:
    """The job, with what the whole model answers, by ONNX Runtime. `options`: seed, timeout in ms,
    pause in ms."""
    seed, timeout_ms, pause_ms = options
    check = LiveCheck(repositories, subject.model, subject.inputs)
    class_plans = _class_plans(repositories, asked, classes, check)
    plans = dict.fromkeys(plan for item in class_plans.values() for plan in item)
    if asked.plan_id is None:  # a router may name any plan: one out of its class is told as such
        plans.update(dict.fromkeys(check.expected))
    access = access_of(asked.address)
    settings = LoadSettings(
        classes=dict(classes),
        inputs=subject.from_where,
        inputs_sha256=inputs_sha256(subject.inputs),
        batch=_batch(repositories, subject.inputs),
        seed=seed,
        timeout_ms=timeout_ms,
        pause_ms=pause_ms,
        tls=access.ca is not None,
        workers=1,
        locust="unknown",
    )
    answers = {plan: check.expected[plan].answers for plan in plans}
    job = LoadJob(
        model=asked.model,
        url=str(asked.address),
        credentials=_credentials(access),
        plan_id=asked.plan_id,
        shape=shape[0],
        levels=tuple(shape[1]),
        settings=settings,
        input_names=tuple(subject.inputs[0]),
        output_names=tuple(next(iter(answers.values()))[0]),
        questions=len(subject.inputs),
        plans={plan: _allowed(check, plan) for plan in plans},
        class_plans=class_plans,
    )
    return job, Questions(subject.inputs, answers)


def _credentials(access: Access) -> Credentials:
    return Credentials(
        ca=_text(access.ca),
        client_cert=_text(access.client_cert),
        client_key=_text(access.client_key),
        server_name=access.server_name,
    )


def _allowed(check: LiveCheck, plan: str) -> Allowed:
    found = check.expected[plan]
    return Allowed(
        absolute=found.tolerance.absolute, relative=found.tolerance.relative, slack=found.slack
    )


def check_classes(repositories: Repositories, asked: Asked, classes: Mapping[str, int]) -> None:
    """Raise UsageError for classes that the model does not have."""
    family = repositories.family
    if not classes:
        return
    if family is None or asked.plan_id is not None:
        raise UsageError(f"--class is for routers; '{asked.model}' is plan {asked.plan_id}")
    known = [item.name for item in family.classes]
    for name in classes:
        if name not in known:
            raise UsageError(
                f"--class {name}: is no class of the folder{did_you_mean(name, known)}; known are "
                f"{', '.join(known)}"
            )


def _class_plans(
    repositories: Repositories, asked: Asked, classes: Mapping[str, int], check: LiveCheck
) -> dict[str, tuple[str, ...]]:
    if asked.plan_id is not None:
        return {"": (asked.plan_id,)}
    family = repositories.family
    if not classes or family is None:
        return {"": tuple(check.of_router)}
    return {name: tuple(family.request_class(name).plans) for name in classes}


def _batch(repositories: Repositories, inputs: Sequence[Arrays]) -> int:
    """Size of the symbolic dimension with which all inputs of the model begin; 1 without one."""
    plan = repositories.plan
    leading = {plan.tensor(t).shape[:1] for t in plan.inputs}
    if len(leading) != 1 or not all(isinstance(n, str) for n in next(iter(leading))):
        return 1
    sizes = {array.shape[0] for arrays in inputs for array in arrays.values() if array.shape}
    if len(sizes) > 1:
        raise InputError(
            f"inputs have batches of {', '.join(map(str, sorted(sizes)))}: give inputs of one batch"
        )
    return max(next(iter(sizes), 1), 1)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def check_ready(asked: Asked) -> None:
    """Raise ServerError unless the model is served."""
    client = connect(asked.address)
    try:
        ready = client.is_model_ready(asked.model, client_timeout=_PATIENCE_S)
    except InferenceServerException as error:
        what = explained(error, asked.address)
        raise ServerError(f"no server answers at {asked.address}: {what}") from None
    finally:
        client.close()
    if not ready:
        raise ServerError(
            f"the server at {asked.address} does not serve '{asked.model}': deploy it with "
            "`tritier deploy`"
        )


def environment_of(asked: Asked) -> Environment:
    """What this machine is, and the versions of the servers that tell them."""
    versions = {}
    for name, url in asked.others.items():
        client = connect(url)
        try:
            versions[name] = str(client.get_server_metadata(client_timeout=_PATIENCE_S).version)
        except InferenceServerException:
            continue
        finally:
            client.close()
    return current(versions)


def router_counts(asked: Asked, job: LoadJob) -> dict[str, int]:
    """Answers of each plan that the router of the entry has counted until now; empty if its metrics
    are not known or it is none."""
    if asked.plan_id is not None or asked.metrics_url is None:
        return {}
    name, model = "tritier_router_requests_total", job.model
    found = {
        plan: metric_value(asked.metrics_url, name, {"model": model, "plan": plan, "status": "OK"})
        for plan in job.plans
    }
    return {plan: int(value or 0) for plan, value in found.items()}
