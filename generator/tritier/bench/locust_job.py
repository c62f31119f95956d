"""What the processes of a load test need: a folder with a settings file and arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tritier.bench.locust_shapes import Level
from tritier.deployment.access import Access, Address
from tritier.divider import Arrays
from tritier.documents.base import Document
from tritier.documents.load import LoadSettings, LoadShape
from tritier.errors import InputError
from tritier.files import write_file

# The environment variable that names the folder to Locust's processes.
FOLDER_VARIABLE = "TRITIER_LOAD"
JOB_NAME = "job.json"
ARRAYS_NAME = "arrays.npz"
RESULT_NAME = "load.json"
SAMPLES_NAME = "samples.csv"
PROGRESS_NAME = "progress.txt"
STOP_NAME = "stop"


class Allowed(Document):
    """How far answers of a plan may be from the whole model's (rule R4)."""

    absolute: float = Field(ge=0)
    relative: float = Field(ge=0)
    slack: dict[str, float] = Field(default_factory=dict, description="by output, for noise")


class Credentials(Document):
    """Paths of what TLS needs; never what they contain."""

    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    server_name: str | None = None


class LoadJob(Document):
    """One load test, without its arrays."""

    title: ClassVar[str] = "load job"

    model: str
    url: str
    credentials: Credentials = Credentials()
    plan_id: str | None = None
    shape: LoadShape
    levels: tuple[Level, ...] = Field(min_length=1)
    settings: LoadSettings
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    questions: int = Field(ge=1)
    plans: dict[str, Allowed] = Field(min_length=1)
    class_plans: dict[str, tuple[str, ...]] = Field(
        description="class, empty for none -> plans, of which one must have answered"
    )

    @property
    def address(self) -> Address:
        """Where to send requests, and how it is spoken to."""

        def path(text: str | None) -> Path | None:
            return Path(text) if text else None

        own = self.credentials
        access = Access(
            ca=path(own.ca),
            client_cert=path(own.client_cert),
            client_key=path(own.client_key),
            server_name=own.server_name,
        )
        return Address(self.url, access)

    @property
    def fingerprint(self) -> str:
        """The same for processes that ask the same in the same way; answers are each one's own."""
        how = self.settings
        own = [
            self.model, how.inputs_sha256, how.classes, sorted(self.plans),
            how.batch, how.seed, how.timeout_ms, how.pause_ms,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    @property
    def duration_s(self) -> float:
        """How long requests are sent."""
        return self.levels[-1].end_s


@dataclass(frozen=True)
class Questions:
    """Inputs, and by plan what it should answer to each of them."""

    inputs: Sequence[Arrays]
    answers: Mapping[str, Sequence[Arrays]]


def inputs_sha256(inputs: Sequence[Arrays]) -> str:
    """Hash of names, types, shapes and values."""
    digest = hashlib.sha256()
    for arrays in inputs:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def write_job(folder: Path, job: LoadJob, questions: Questions) -> None:
    """Write the folder of a test. Scalars become one element, as Triton answers them.

    Raises InputError for texts, which no answer is compared by.
    """
    content: dict[str, Any] = {}
    for k, arrays in enumerate(questions.inputs):
        content |= {f"input_{k}_{j}": arrays[n] for j, n in enumerate(job.input_names)}
    for p, plan in enumerate(job.plans):
        for k, arrays in enumerate(questions.answers[plan]):
            content |= {
                f"answer_{p}_{k}_{j}": np.atleast_1d(arrays[n])
                for j, n in enumerate(job.output_names)
            }
    texts = [array for array in content.values() if np.asarray(array).dtype.hasobject]
    if texts:
        raise InputError("the model has inputs or outputs of texts: load tests need numbers")
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / ARRAYS_NAME, **content)
    write_file(folder / JOB_NAME, job.to_json())


def read_job(folder: Path) -> tuple[LoadJob, Questions]:
    """What `write_job` wrote."""
    job = LoadJob.load(folder / JOB_NAME)
    with np.load(folder / ARRAYS_NAME, allow_pickle=False) as arrays:
        numbers = range(job.questions)
        inputs = [
            {n: arrays[f"input_{k}_{j}"] for j, n in enumerate(job.input_names)} for k in numbers
        ]
        answers = {
            plan: [
                {n: arrays[f"answer_{p}_{k}_{j}"] for j, n in enumerate(job.output_names)}
                for k in numbers
            ]
            for p, plan in enumerate(job.plans)
        }
    return job, Questions(inputs, answers)


def named_folder() -> Path:
    """The folder that the environment names; raises InputError without one."""
    name = os.environ.get(FOLDER_VARIABLE)
    if not name or not (Path(name) / JOB_NAME).is_file():
        raise InputError(
            f"{FOLDER_VARIABLE}={name or ''}: is no folder of a load test; make one with `tritier "
            "load MODEL ... --prepare FOLDER` and name it with that variable"
        )
    return Path(name)
