"""Trains the super-resolution network of this example and writes it as ONNX.

Needs PyTorch, which the project itself does not: see ``requirements-train.txt`` and the README.

    python train.py --model espcn_x3.onnx --log training.log

The network works on luminance only: ``(batch, 1, 224, 224)`` float32 in [0, 1] becomes
``(batch, 1, 672, 672)``. It is trained on small patches; as it is fully convolutional, the size
of the tiles is decided only when the graph is written.
"""

import argparse
import hashlib
import math
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from photographs import (
    HELD_OUT,
    TRAINING,
    UPSCALE,
    VALIDATION,
    Photograph,
    Plane,
    crop_to_multiple,
    enlarge_bicubic,
    load_rgb,
    luminance,
    reduce,
    resize,
    to_uint8,
    to_unit,
)
from tiling import CONTEXT, TILE
from torch import nn
from torch.nn import functional

INPUT_NAME = "luminance"
OUTPUT_NAME = "upscaled"
OPSET = 17
IR_VERSION = 8  # ONNX Runtime 1.19 and older read it too


@dataclass(frozen=True)
class Convolution:
    """One convolution: ``inputs`` channels to ``outputs`` channels with a square kernel."""

    name: str
    inputs: int
    outputs: int
    kernel: int


# At most 32 channels, then 16: where the graph is cut, these tensors travel between servers. For
# one tile 16 channels are 3.2 MB, the nine of the last convolution 1.8 MB.
CONVOLUTIONS = (
    Convolution("conv1", 1, 32, 3),
    Convolution("conv2", 32, 32, 3),
    Convolution("conv3", 32, 16, 3),
    Convolution("conv4", 16, 16, 3),
    Convolution("conv5", 16, UPSCALE * UPSCALE, 3),
)
assert sum(layer.kernel // 2 for layer in CONVOLUTIONS) == CONTEXT


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a run, apart from the versions of the packages."""

    seed: int = 20240229
    threads: int = 2
    epochs: int = 50
    steps_per_epoch: int = 200
    batch: int = 16
    patch: int = 42  # pixels of the small picture, CONTEXT of them on each side without loss
    learning_rate: float = 2e-3
    learning_rate_end: float = 2e-5
    # Reducing a photograph before the pair is made gives sharper and cleaner targets, and more
    # kinds of detail from few photographs.
    scales: tuple[float, ...] = (1.0, 0.8, 0.6, 0.45)


class SuperResolution(nn.Module):
    """The network: five convolutions which correct an enlargement by plain repetition."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {
                c.name: nn.Conv2d(c.inputs, c.outputs, c.kernel, padding=c.kernel // 2)
                for c in CONVOLUTIONS
            }
        )
        self._initialise()

    def _initialise(self) -> None:
        for name, layer in self.convolutions.items():
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if name == CONVOLUTIONS[-1].name:
                # Start near the plain enlargement, which the first steps then only improve.
                nn.init.normal_(layer.weight, std=1e-3)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Enlarge ``(batch, 1, height, width)`` to ``(batch, 1, 3 * height, 3 * width)``.

        Not clipped: while training, the gradient must also come from values outside [0, 1].
        """
        hidden = image
        for name, layer in self.convolutions.items():
            hidden = layer(hidden)
            if name != CONVOLUTIONS[-1].name:
                hidden = functional.relu(hidden)
        # The one channel of the image is added to all nine, which the shuffle then lays out as
        # a 3x3 block per pixel.
        return functional.pixel_shuffle(hidden + image, UPSCALE)


@dataclass(frozen=True)
class Pair:
    """A small picture ``(h, w)`` and its original ``(3h, 3w)``, both float32 in [0, 1]."""

    low: torch.Tensor
    high: torch.Tensor


def make_pair(photograph: Photograph, scale: float) -> Pair:
    """Return a photograph, reduced to ``scale`` of its size first, as a pair."""
    picture = luminance(load_rgb(photograph))
    if scale != 1.0:
        height, width = picture.shape
        picture = resize(picture, round(height * scale), round(width * scale))
    high = crop_to_multiple(picture)
    return Pair(torch.from_numpy(to_unit(reduce(high))), torch.from_numpy(to_unit(high)))


def training_pairs(settings: Settings) -> list[list[Pair]]:
    """Return one list per training photograph, one pair per scale."""
    return [[make_pair(photo, scale) for scale in settings.scales] for photo in TRAINING]


def draw_patch(pair: Pair, size: int, rng: np.random.Generator) -> Pair:
    """Cut a random patch of ``size`` small pixels, randomly mirrored and turned."""
    height, width = pair.low.shape
    top = int(rng.integers(height - size + 1))
    left = int(rng.integers(width - size + 1))
    low = pair.low[top : top + size, left : left + size]
    top, left, side = top * UPSCALE, left * UPSCALE, size * UPSCALE
    high = pair.high[top : top + side, left : left + side]
    if rng.random() < 0.5:
        low, high = low.flip(1), high.flip(1)
    turns = int(rng.integers(4))
    return Pair(low.rot90(turns), high.rot90(turns))


def draw_batch(pairs: list[list[Pair]], settings: Settings, rng: np.random.Generator) -> Pair:
    """Return a batch: ``low`` ``(batch, 1, patch, patch)``, ``high`` three times as large.

    Photographs are drawn evenly, so the large ones do not outweigh the small ones.
    """
    patches = []
    for _ in range(settings.batch):
        of_photograph = pairs[int(rng.integers(len(pairs)))]
        pair = of_photograph[int(rng.integers(len(of_photograph)))]
        patches.append(draw_patch(pair, settings.patch, rng))
    return Pair(
        torch.stack([patch.low for patch in patches])[:, None],
        torch.stack([patch.high for patch in patches])[:, None],
    )


def inner(images: torch.Tensor) -> torch.Tensor:
    """Cut off the border of ``(batch, 1, H, W)`` which saw the zero padding of a convolution.

    Tiles are padded with real pixels or by reflection, so that border is never used.
    """
    cut = CONTEXT * UPSCALE
    return images[:, :, cut:-cut, cut:-cut]


def learning_rate(settings: Settings, step: int) -> float:
    """Return the rate of a step, falling along half a cosine."""
    total = settings.epochs * settings.steps_per_epoch
    fall = 0.5 * (1 + math.cos(math.pi * step / total))
    return settings.learning_rate_end + fall * (settings.learning_rate - settings.learning_rate_end)


def psnr(first: Plane, second: Plane) -> float:
    """Return the PSNR in dB of two planes in [0, 1], as uint8 and without a border of 3 px."""
    shaved = slice(UPSCALE, -UPSCALE)
    difference = to_uint8(first).astype(np.float64) - to_uint8(second)
    return float(20 * np.log10(255) - 10 * np.log10(np.mean(difference[shaved, shaved] ** 2)))


def enlarge(network: SuperResolution, low: torch.Tensor) -> Plane:
    """Enlarge a whole picture ``(h, w)`` to ``(3h, 3w)``, padded by reflection."""
    with torch.no_grad():
        padded = functional.pad(low[None, None], (CONTEXT,) * 4, mode="reflect")
        plane: Plane = inner(network(padded))[0, 0].clamp(0, 1).numpy()
    return plane


def validate(network: SuperResolution, pairs: list[Pair]) -> list[float]:
    """Return the PSNR in dB of each validation photograph."""
    return [psnr(enlarge(network, pair.low), pair.high.numpy()) for pair in pairs]


class Log:
    """Writes each line to the console and to the log file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, line: str) -> None:
        """Write one line."""
        print(line, flush=True)
        print(line, file=self._file, flush=True)


def log_settings(settings: Settings, network: SuperResolution, log: Log) -> None:
    """Write down what is needed to repeat the run."""
    packages = ("torch", "numpy", "onnx", "onnxruntime", "pillow", "scikit-image", "scikit-learn")
    log(
        f"versions: python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )
    log(f"settings: {settings}")
    log("loss: mean squared error of luminance in [0, 1]; optimiser: Adam; rate: half a cosine")
    log("training photographs: " + ", ".join(photo.name for photo in TRAINING))
    log("validation photographs: " + ", ".join(photo.name for photo in VALIDATION))
    log("held-out photographs, not read: " + ", ".join(photo.name for photo in HELD_OUT))
    log(f"parameters: {sum(p.numel() for p in network.parameters())}")


def train(settings: Settings, log: Log) -> SuperResolution:
    """Train a network from scratch; the last state is kept, none is picked."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(settings.seed)
    network = SuperResolution()
    log_settings(settings, network, log)
    pairs = training_pairs(settings)
    validation = [make_pair(photo, 1.0) for photo in VALIDATION]
    log_baseline(validation, log)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    start = time.monotonic()
    for epoch in range(settings.epochs):
        loss = train_epoch(network, optimiser, pairs, epoch, settings, rng)
        scores = validate(network, validation)
        log(
            f"epoch {epoch + 1:3d}  loss {loss:.7f}  validation PSNR "
            + "  ".join(f"{score:.3f}" for score in scores)
            + f"  mean {np.mean(scores):.3f} dB  {time.monotonic() - start:6.1f} s"
        )
    log(f"wall time of training: {time.monotonic() - start:.1f} s")
    return network


def log_baseline(validation: list[Pair], log: Log) -> None:
    """Write down what plain bicubic enlargement reaches on the validation photographs."""
    scores = [
        psnr(to_unit(enlarge_bicubic(to_uint8(pair.low.numpy()))), pair.high.numpy())
        for pair in validation
    ]
    log(
        "bicubic             validation PSNR "
        + "  ".join(f"{score:.3f}" for score in scores)
        + f"  mean {np.mean(scores):.3f} dB"
    )


def train_epoch(
    network: SuperResolution,
    optimiser: torch.optim.Adam,
    pairs: list[list[Pair]],
    epoch: int,
    settings: Settings,
    rng: np.random.Generator,
) -> float:
    """Run one epoch and return the mean loss."""
    losses = []
    for step in range(settings.steps_per_epoch):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, epoch * settings.steps_per_epoch + step)
        batch = draw_batch(pairs, settings, rng)
        loss = functional.mse_loss(inner(network(batch.low)), inner(batch.high))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def graph_nodes() -> list[onnx.NodeProto]:
    """Return the nodes of the graph, in order and with readable names."""
    nodes = []
    tensor = INPUT_NAME
    for layer in CONVOLUTIONS:
        pads = [layer.kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv",
                [tensor, f"{layer.name}.weight", f"{layer.name}.bias"],
                [f"{layer.name}_out"],
                name=layer.name,
                kernel_shape=[layer.kernel] * 2,
                pads=pads,
            )
        )
        tensor = f"{layer.name}_out"
        if layer is not CONVOLUTIONS[-1]:
            relu = layer.name.replace("conv", "relu")
            nodes.append(helper.make_node("Relu", [tensor], [f"{relu}_out"], name=relu))
            tensor = f"{relu}_out"
    nodes += [
        helper.make_node("Add", [tensor, INPUT_NAME], ["residual_out"], name="residual"),
        helper.make_node(
            "DepthToSpace",
            ["residual_out"],
            ["shuffle_out"],
            name="shuffle",
            blocksize=UPSCALE,
            mode="CRD",
        ),
        helper.make_node("Clip", ["shuffle_out", "black", "white"], [OUTPUT_NAME], name="clip"),
    ]
    return nodes


def build_model(network: SuperResolution) -> onnx.ModelProto:
    """Return the trained network as an ONNX model for tiles of 224x224 and any batch size."""
    weights = [
        numpy_helper.from_array(tensor.numpy(), key.removeprefix("convolutions."))
        for key, tensor in network.state_dict().items()
    ]
    limits = [
        numpy_helper.from_array(np.array(0, np.float32), "black"),
        numpy_helper.from_array(np.array(1, np.float32), "white"),
    ]
    large = TILE * UPSCALE
    graph = helper.make_graph(
        graph_nodes(),
        "espcn_x3",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["batch", 1, TILE, TILE])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", 1, large, large])],
        [*weights, *limits],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tritier-example",
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def verify(path: Path, network: SuperResolution, seed: int) -> float:
    """Return the largest difference of ONNX Runtime and PyTorch for batches of 1, 3 and 16."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    largest = 0.0
    for batch in (1, 3, 16):
        images = rng.random((batch, 1, TILE, TILE), dtype=np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).clamp(0, 1).numpy()
        (actual,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
        assert actual.shape == (batch, 1, TILE * UPSCALE, TILE * UPSCALE)
        largest = max(largest, float(np.abs(actual - expected).max()))
    return largest


def main() -> None:
    """Train, write the model, and compare it with the network it was written from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--log", type=Path, required=True, help="log file to write")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    arguments = parser.parse_args()
    settings = Settings(epochs=arguments.epochs)
    with arguments.log.open("w", encoding="utf-8") as file:
        log = Log(file)
        network = train(settings, log).eval()
        onnx.save(build_model(network), arguments.model)
        difference = verify(arguments.model, network, settings.seed)
        log(f"largest difference of ONNX Runtime and PyTorch: {difference:.2e}")
        log(f"sha256 of the model: {hashlib.sha256(arguments.model.read_bytes()).hexdigest()}")
    if difference > 1e-5:
        raise SystemExit("the ONNX model does not compute what was trained")


if __name__ == "__main__":
    main()
