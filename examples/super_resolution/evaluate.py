"""Compares the network with bicubic interpolation on photographs it never saw.

Runs with ONNX Runtime only, no PyTorch:

    python evaluate.py

Prints PSNR and SSIM of the luminance of each held-out photograph and exits with code 1 when the
network does not gain at least 0.5 dB in the mean.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from photographs import (
    HELD_OUT,
    UPSCALE,
    Photograph,
    Picture,
    crop_to_multiple,
    enlarge_bicubic,
    load_rgb,
    luminance,
    recolour,
    reduce,
    to_uint8,
    to_unit,
)
from PIL import Image
from skimage.metrics import structural_similarity
from tiling import join, split

MODEL = Path(__file__).with_name("espcn_x3.onnx")
LARGEST_BATCH = 16
REQUIRED_GAIN = 0.5
"""Smallest acceptable mean gain in PSNR over bicubic interpolation, in dB."""


@dataclass(frozen=True)
class Score:
    """Likeness to the original: PSNR in dB, SSIM at most 1. More is better for both."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class Result:
    """The scores of one photograph of ``height`` x ``width`` pixels."""

    name: str
    height: int
    width: int
    bicubic: Score
    network: Score


def score(picture: Picture, original: Picture) -> Score:
    """Compare two pictures ``(height, width)`` without their border of 3 px.

    SSIM has the Gaussian window of its authors (Wang et al., 2004).
    """
    shaved = (slice(UPSCALE, -UPSCALE),) * 2
    picture, original = picture[shaved], original[shaved]
    error = np.mean((picture.astype(np.float64) - original) ** 2)
    similarity: Callable[..., float] = structural_similarity
    ssim = similarity(
        picture,
        original,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return Score(float(10 * np.log10(255**2 / error)), float(ssim))


def enlarge(session: onnxruntime.InferenceSession, low: Picture) -> Picture:
    """Enlarge a luminance ``(h, w)`` to ``(3h, 3w)`` with the network, tile by tile."""
    tiles, grid = split(to_unit(low))
    answers = [
        session.run(["upscaled"], {"luminance": tiles[first : first + LARGEST_BATCH]})[0]
        for first in range(0, len(tiles), LARGEST_BATCH)
    ]
    return to_uint8(join(np.concatenate(answers), grid))


def evaluate(session: onnxruntime.InferenceSession, photograph: Photograph) -> Result:
    """Reduce a photograph by 3, enlarge it again in both ways, and compare with the original."""
    original = luminance(crop_to_multiple(load_rgb(photograph)))
    low = reduce(original)
    return Result(
        name=photograph.name,
        height=original.shape[0],
        width=original.shape[1],
        bicubic=score(enlarge_bicubic(low), original),
        network=score(enlarge(session, low), original),
    )


def print_table(results: list[Result]) -> None:
    """Print the results as a table in Markdown."""
    print(
        "| photograph | size | PSNR bicubic | PSNR network | gain | SSIM bicubic | SSIM network |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    rows = [(r.name, f"{r.width}x{r.height}", r.bicubic, r.network) for r in results]
    rows.append(("**mean**", "", mean([r.bicubic for r in results]), mean_network(results)))
    for name, size, bicubic, network in rows:
        print(
            f"| {name} | {size} | {bicubic.psnr:.2f} dB | {network.psnr:.2f} dB "
            f"| {network.psnr - bicubic.psnr:+.2f} dB | {bicubic.ssim:.4f} | {network.ssim:.4f} |"
        )


def mean(scores: list[Score]) -> Score:
    """Return the mean of scores."""
    return Score(
        float(np.mean([one.psnr for one in scores])),
        float(np.mean([one.ssim for one in scores])),
    )


def mean_network(results: list[Result]) -> Score:
    """Return the mean score of the network."""
    return mean([result.network for result in results])


def write_picture(
    session: onnxruntime.InferenceSession, photograph: Photograph, path: Path
) -> None:
    """Write original, bicubic and network side by side, in colour."""
    original = crop_to_multiple(load_rgb(photograph))
    low = reduce(original)
    network = recolour(low, enlarge(session, luminance(low)))
    Image.fromarray(np.hstack([original, enlarge_bicubic(low), network])).save(path)


def main() -> int:
    """Print the table; return 1 when the network gains less than required."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="ONNX file to evaluate")
    parser.add_argument("--pictures", type=Path, help="folder for comparisons as PNG (optional)")
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    results = [evaluate(session, photograph) for photograph in HELD_OUT]
    print_table(results)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for photograph in HELD_OUT:
            write_picture(session, photograph, arguments.pictures / f"{photograph.name}.png")
    gain = mean_network(results).psnr - mean([result.bicubic for result in results]).psnr
    if gain < REQUIRED_GAIN:
        print(f"mean gain {gain:.2f} dB is below {REQUIRED_GAIN} dB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
