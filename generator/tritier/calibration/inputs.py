"""The inputs of a calibration: photographs, or arrays from files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritier.calibration.images import Array, image_input, preprocess, read_image
from tritier.documents import InputFile, Preprocessing
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.graph import LoadedModel, TensorInfo, build_layer_graph, infer_tensors

Arrays = dict[str, Array]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def model_inputs(model: LoadedModel) -> list[TensorInfo]:
    """Type and shape of each input; raises InputError for those that are no plain tensors."""
    return list(infer_tensors(model.proto, build_layer_graph(model.proto).inputs).values())


def find_images(places: Sequence[Path]) -> list[Path]:
    """The files as given, and for each folder its images in the order of their names.

    Raises InputError for what does not exist and for folders without images.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if _looks_like_image(path))
            if not inside:
                raise InputError(
                    f"has no images: files that end in {', '.join(SUFFIXES)}", str(place)
                )
            found.update(dict.fromkeys(inside))
        elif place.exists():
            found[place] = None
        else:
            raise InputError("no such file or folder: give images", str(place))
    return list(found)


def choose(paths: Sequence[Path], limit: int | None, seed: int) -> list[Path]:
    """All, or `limit` of them that the seed chooses, in their order."""
    if limit is None or limit >= len(paths):
        return list(paths)
    picked = np.random.default_rng(seed).choice(len(paths), limit, replace=False)
    return [paths[index] for index in sorted(picked)]


@dataclass(frozen=True)
class ImageInputs:
    """Inputs of a model made of images, one at a time; iterating again reads them again."""

    paths: tuple[Path, ...]
    preprocessing: Preprocessing
    tensor: TensorInfo

    @classmethod
    def of(
        cls, model: LoadedModel, paths: Sequence[Path], preprocessing: Preprocessing
    ) -> ImageInputs:
        """Raises InputError when the model's inputs and the preprocessing contradict each other."""
        return cls(tuple(paths), preprocessing, image_input(model_inputs(model), preprocessing))

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Arrays]:
        for path in self.paths:
            pixels = read_image(path)
            try:
                array = preprocess(pixels, self.preprocessing, self.tensor.shape, self.tensor.dtype)
            except InputError as error:
                raise InputError(error.faults, str(path)) from None
            yield {self.tensor.name: array}


def input_files(inputs: Inputs) -> tuple[InputFile, ...]:
    """Names and hashes of the files that inputs come from."""
    return tuple(InputFile(name=path.name, sha256=sha256_file(path)) for path in inputs.paths)


@dataclass(frozen=True)
class FileInputs:
    """Inputs of a model from .npz or .npy files, read one at a time."""

    paths: tuple[Path, ...]
    tensors: tuple[TensorInfo, ...]

    @classmethod
    def of(cls, model: LoadedModel, paths: Sequence[Path]) -> FileInputs:
        """Raises InputError for a model whose inputs are no plain tensors."""
        return cls(tuple(paths), tuple(model_inputs(model)))

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Arrays]:
        for path in self.paths:
            yield read_arrays(path, self.tensors)


Inputs = ImageInputs | FileInputs


def read_arrays(path: Path, tensors: Sequence[TensorInfo]) -> Arrays:
    """One array for each tensor: an .npz with their names, or an .npy if there is only one.

    Raises InputError naming the file and all that is missing or of another type or shape; a
    symbolic size fits any.
    """
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        if len(tensors) != 1:
            names = ", ".join(tensor.name for tensor in tensors)
            raise InputError(f"holds one array, the model needs {names}: give an .npz", str(path))
        arrays = {tensors[0].name: arrays}
    faults = []
    for tensor in tensors:
        array = arrays.get(tensor.name)
        if array is None:
            faults.append(f"has no array '{tensor.name}'; it has {', '.join(arrays) or 'none'}")
        elif array.dtype != np.dtype(tensor.dtype) or not _fits(array.shape, tensor.shape):
            faults.append(
                f"'{tensor.name}' is {array.dtype} of shape {list(array.shape)}; the model needs "
                f"{tensor.dtype} of shape {list(tensor.shape)}"
            )
    if faults:
        raise InputError(faults, str(path))
    return {tensor.name: arrays[tensor.name] for tensor in tensors}


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _load(path: Path) -> Array | Arrays:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            found = {name: content[name] for name in content.files}
            # What is no array in an archive comes back as its bytes.
            return {name: item for name, item in found.items() if isinstance(item, np.ndarray)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"can't be read as .npy or .npz: {error}", str(path)) from None


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or size == want for size, want in zip(shape, wanted, strict=True)
    )
