"""The part of export.py that needs PyTorch and Ultralytics; export.py calls it.

Arguments: a name, a .yaml or a .pt file; the output folder; height and width; the seed; a folder of
photographs or nothing.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import onnx
import torch
from ultralytics import YOLO

# The newest opset that the runtimes of older Triton servers still know.
OPSET = 17


def export(source: str, output: Path, size: int, seed: int, photographs: str) -> Path:
    """Write one ONNX file with a fixed input of (1, 3, size, size) into a folder."""
    torch.manual_seed(seed)
    if source.endswith(".pt"):
        # Ultralytics writes beside the checkpoint; a copy keeps that folder clean.
        source = shutil.copy(source, ".")
    elif not source.endswith(".yaml"):
        source = f"{source}.yaml"
    target = output / f"{Path(source).stem}.onnx"
    model = YOLO(source)
    if photographs:
        gather_statistics(model.model, Path(photographs), size)
    written = model.export(format="onnx", opset=OPSET, simplify=True, imgsz=size)
    finish(Path(written), target)
    if source.endswith(".pt"):  # without training the names are just numbers
        lines = "".join(f"{model.names[number]}\n" for number in sorted(model.names))
        target.with_suffix(".names.txt").write_text(lines, "utf-8")
    return target


def gather_statistics(network: torch.nn.Module, folder: Path, size: int) -> None:
    """Let batch normalisation see photographs, so that signals pass through random weights."""
    found = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    images = [cv2.resize(image, (size, size))[..., ::-1] for image in found if image is not None]
    if not images:
        sys.exit(f"--images: {folder} holds no picture that OpenCV can read")
    batch = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # an average over all that it sees
    network.train()
    with torch.no_grad():
        network(batch.float() / 255)
    network.eval()


def finish(written: Path, target: Path) -> None:
    """Move a file to its place without the date in it: same seed, same bytes."""
    graph = onnx.load(written)
    kept = [entry for entry in graph.metadata_props if entry.key != "date"]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    onnx.save(graph, f"{target}.part")
    os.replace(f"{target}.part", target)


def main() -> None:
    """Export one model and say what it is worth."""
    source, folder, size, seed, photographs = sys.argv[1:]
    if source.endswith((".pt", ".yaml")):
        source = str(Path(source).resolve())
    output = Path(folder).resolve()
    photographs = str(Path(photographs).resolve()) if photographs else ""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            target = export(source, output, int(size), int(seed), photographs)
        except FileNotFoundError as error:
            sys.exit(f"{source}: no architecture of this name is in Ultralytics ({error})")
    nodes = len(onnx.load(target).graph.node)
    print(f"\n{target}: {nodes} nodes, input 1x3x{size}x{size}")
    if source.endswith(".pt"):
        print(f"weights: those of {source}")
    else:
        print(
            f"WEIGHTS ARE RANDOM (seed {seed}): good for splitting, serving and timing; what this "
            "model finds in a picture means nothing. Give --weights FILE.pt for trained ones."
        )


if __name__ == "__main__":
    main()
