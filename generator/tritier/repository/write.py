"""Write one model repository per server, with plan and manifest, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tritier
from tritier.documents import (
    Batching,
    Manifest,
    ManifestFile,
    ManifestModel,
    ManifestTensor,
    ManifestWire,
    Optimisation,
    Plan,
    Tolerance,
    Wire,
    wire_up,
)
from tritier.errors import InputError
from tritier.files import replaced_dir, sha256_bytes
from tritier.repository.check import check_wiring
from tritier.repository.dataplane import build_data_plane
from tritier.repository.render import Renderer
from tritier.repository.types import GenerateOptions, TritonModel
from tritier.resources import triton_dir

MANIFEST_NAME = "manifest.json"
PLAN_NAME = "plan.json"
# Rule R4. The serving tolerance is for sums in another order: what ONNX Runtime fuses within the
# whole model but not across a cut, and layouts that it chooses per model.
_EXACT = (0.0, 0.0, "no graph optimisation: the same kernels in the same order")
_FUSED = (
    1e-5,
    1e-4,
    "ONNX Runtime may fuse, and choose layouts, otherwise than in the whole model",
)


# Path relative to the output folder -> content.
Files = dict[str, bytes]


def generate_files(
    plan: Plan,
    models: Mapping[str, bytes],
    whole: bytes | None,
    batching: Batching,
    options: GenerateOptions,
) -> Files:
    """Every file of the repositories: path relative to the output folder -> content.

    `models` are the sub-models by component, `whole` the uncut model where it is asked for. Nothing
    is written. Same arguments, same bytes (rule R6).
    """
    wired = wire_up(plan)
    triton_models = build_data_plane(wired, batching, options)
    files: Files = {PLAN_NAME: plan.to_json().encode()}
    files |= model_files(triton_models, Renderer(wired, batching, options), models, whole)
    manifest = _manifest(plan, triton_models, batching, options, files)
    files[MANIFEST_NAME] = manifest.to_json().encode()
    return files


def model_files(
    triton_models: Sequence[TritonModel],
    renderer: Renderer,
    models: Mapping[str, bytes],
    whole: bytes | None,
) -> Files:
    """Configs and version folders of Triton models. Raises InputError for faulty wiring."""
    rendered = {(m.server, m.name): renderer.render(m) for m in triton_models}
    check_wiring({key: item.config for key, item in rendered.items()})
    files: Files = {}
    for model in triton_models:
        folder = f"{model.server}/{model.name}"
        files[f"{folder}/config.pbtxt"] = rendered[model.server, model.name].text.encode()
        for name, data in _version_files(model, models, whole).items():
            files[f"{folder}/1/{name}"] = data
    return files


def write_files(files: Mapping[str, bytes], output: Path, force: bool) -> None:
    """Fill `output` with the files; what was there stays if anything fails.

    `force` replaces a folder that was generated, and no other: all in it would be lost.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_NAME).is_file():
        raise InputError(
            f"{output} holds files and no {MANIFEST_NAME}, so it was not generated and is never "
            "replaced: choose another folder"
        )
    with replaced_dir(output, force) as folder:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _version_files(
    model: TritonModel, models: Mapping[str, bytes], whole: bytes | None
) -> dict[str, bytes]:
    """Content of the folder `1/` of a model. Triton wants the folder even for an ensemble."""
    if model.kind == "component":
        assert model.component is not None
        return {"model.onnx": models[model.component]}
    if model.kind == "whole":
        assert whole is not None
        return {"model.onnx": whole}
    if model.kind in ("stage", "entry"):
        return {".keep": b""}
    folders = (triton_dir() / "models" / model.kind, triton_dir() / "shared")
    paths = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return {path.name: path.read_bytes() for path in paths}


def _manifest(
    plan: Plan,
    models: Sequence[TritonModel],
    batching: Batching,
    options: GenerateOptions,
    files: Files,
) -> Manifest:
    return Manifest(
        tool_version=tritier.__version__,
        plan_id=plan.id,
        model=plan.model.name,
        model_sha256=plan.model.sha256,
        batching=batching,
        tolerances=tolerances(plan, options),
        tensors=manifest_tensors(plan),
        wires=manifest_wires(plan),
        models=manifest_models(models),
        files=manifest_files(files),
    )


def tolerances(plan: Plan, options: GenerateOptions) -> tuple[Tolerance, ...]:
    """What rule R4 allows without graph optimisation and at the level at which models are served,
    which is the last."""
    levels: list[Optimisation] = list(dict.fromkeys(("disabled", options.optimisation)))
    return tuple(_tolerance(plan, level) for level in levels)


def manifest_tensors(plan: Plan) -> tuple[ManifestTensor, ...]:
    """The name table."""
    return tuple(ManifestTensor(id=t.id, name=t.name) for t in plan.tensors)


def manifest_wires(plan: Plan) -> tuple[ManifestWire, ...]:
    """What crosses links."""
    return tuple(_wire(plan, wire) for wire in plan.wires)


def manifest_models(models: Sequence[TritonModel]) -> tuple[ManifestModel, ...]:
    """Triton models in the order of loading."""
    return tuple(
        ManifestModel(server=m.server, name=m.name, kind=m.kind, component=m.component, plan=m.plan)
        for m in models
    )


def manifest_files(files: Files) -> tuple[ManifestFile, ...]:
    """Sizes and hashes."""
    return tuple(
        ManifestFile(path=name, bytes=len(data), sha256=sha256_bytes(data))
        for name, data in sorted(files.items())
    )


def _wire(plan: Plan, wire: Wire) -> ManifestWire:
    return ManifestWire.model_validate(
        {
            "tensor": wire.tensor,
            "name": plan.tensor(wire.tensor).name,
            "from": wire.source,
            "to": wire.target,
            "codec": wire.codec,
            "dtype": plan.wire_dtype(wire),
            "bytes": plan.wire_bytes(wire),
        }
    )


def _tolerance(plan: Plan, level: Optimisation) -> Tolerance:
    absolute, relative, reason = _EXACT if level in ("disabled", "basic") else _FUSED
    redrawn = 0.0
    if not plan.is_exact and level not in ("disabled", "basic"):
        redrawn, reason = 1.0, f"{reason}; then roundings to 8 bits may fall to the other side"
    return Tolerance(
        optimisation=level,
        absolute=absolute,
        relative=relative,
        share_of_noise=redrawn,
        reason=reason,
    )
