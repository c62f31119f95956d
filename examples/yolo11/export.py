"""Makes ONNX files of YOLO models, for example of YOLO11, to split with Tritier.

    python export.py yolo11n yolo11x-seg -o models

The weights are random, unless a trained checkpoint is given:

    python export.py --weights yolo11n.pt -o models

PyTorch and Ultralytics are installed on the first call, into a virtual environment of their own
(`--venv`). Ultralytics is licensed under AGPL-3.0; see README.md. This script itself needs only
Python 3.11 or newer; `export_inside.py` is what runs in that environment.
"""

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements-export.txt"
ULTRALYTICS = HERE / "requirements-ultralytics.txt"
TESTED = ("yolo11n", "yolo11n-seg", "yolo11n-cls", "yolo11m", "yolo11x-seg")
# The coarsest of the grids on which YOLO11 looks for objects has cells of 32 pixels.
STRIDE = 32


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line; leaves the program if it can't work."""
    parser = argparse.ArgumentParser(description="Make ONNX files of YOLO models.")
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help=f"names that Ultralytics knows, with random weights; tested: {', '.join(TESTED)}; "
        "or a .yaml file with an architecture",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE.pt",
        help="a trained checkpoint, which also says the architecture; instead of names. "
        "Loading one runs code from it: take only files that you trust",
    )
    parser.add_argument(
        "--imgsz",
        type=int,
        default=640,
        help="height and width of the input in pixels, a multiple of 32 (default 640; trained "
        "classification models usually want 224)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="photographs for the statistics of batch normalisation: with random weights, signals "
        "then pass through the whole network, as in a trained one",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("models"), help="folder (default models)"
    )
    parser.add_argument(
        "--venv",
        type=Path,
        default=HERE / ".venv",
        help="folder of the virtual environment, made if it isn't there (default: .venv beside "
        "this script)",
    )
    options = parser.parse_args()
    if bool(options.models) == bool(options.weights):
        parser.error("give either names of models or --weights FILE.pt")
    if options.weights and not options.weights.is_file():
        parser.error(f"--weights: there is no file {options.weights}")
    if options.images and options.weights:
        parser.error("--images is for random weights; trained ones have their statistics")
    if options.images and not options.images.is_dir():
        parser.error(f"--images: there is no folder {options.images}")
    if options.imgsz < STRIDE or options.imgsz % STRIDE:
        parser.error(f"--imgsz: {options.imgsz} is not a positive multiple of {STRIDE}")
    return options


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment that has the pinned packages; makes it if needed."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed.txt"
    wanted = REQUIREMENTS.read_text("utf-8") + ULTRALYTICS.read_text("utf-8")
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        sys.exit(f"--venv: {folder} is no virtual environment and not empty; name another folder")
    print(f"installing PyTorch and Ultralytics (AGPL-3.0) into {folder} ...", flush=True)
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([*pip, "-r", str(REQUIREMENTS)], [*pip, "--no-deps", "-r", str(ULTRALYTICS)]):
        if subprocess.run(command, check=False).returncode:
            sys.exit("pip failed, see above; run this again when the cause is removed")
    # Last, so that an installation that was cut off starts again.
    stamp.write_text(wanted, "utf-8")
    return python


def main() -> int:
    """Export what the command line asks for; the exit code is 0 if all files were written."""
    options = parse_arguments()
    python = python_of(options.venv.resolve())
    environment = {
        **os.environ,
        "YOLO_CONFIG_DIR": str(options.venv.resolve()),  # else it writes into the home folder
        "YOLO_OFFLINE": "true",  # no statistics are sent, no weights fetched
        "YOLO_AUTOINSTALL": "false",
    }
    options.output.mkdir(parents=True, exist_ok=True)
    sources = [str(options.weights)] if options.weights else options.models
    for source in sources:
        command = [str(python), str(HERE / "export_inside.py"), source, str(options.output)]
        command += [str(options.imgsz), str(options.seed)]
        command.append(str(options.images or ""))
        if code := subprocess.run(command, env=environment, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
