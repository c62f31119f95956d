"""Folders of several plans with a router, and requests that go on while they change."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tritier.deployment.access import connect
from tritier.divider import Array
from tritier.documents import Family, Plan
from tritier.errors import ServerError
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, plan_file, write_files
from tritier.workflow import infer
from tritier.workflow.family_generate import generate_family


def family_of(plans: Sequence[Plan], deadline_ms: int = 20_000, whole: bool = False) -> Family:
    """One class of requests that tries the plans in their order."""
    ids = [plan.id for plan in plans]
    return Family.from_data(
        {
            "model": plans[0].model.model_dump(),
            "plans": [
                {
                    "id": plan.id,
                    "file": plan_file(plan.id),
                    "servers": [server.name for server in plan.servers],
                    "latency_ms": 50.0,
                }
                for plan in plans
            ],
            "classes": [
                {
                    "name": "normal",
                    "plans": [*ids, *(["whole"] if whole else [])],
                    "deadline_ms": deadline_ms,
                }
            ],
            "default_class": "normal",
        }
    )


def family_folder(
    model: LoadedModel, plans: Sequence[Plan], folder: Path, whole: bool = False
) -> Repositories:
    """Generated, without graph optimisation, so that answers are equal bit for bit."""
    options = GenerateOptions(optimisation="disabled", deadline_ms=20_000)
    files, _ = generate_family(family_of(plans, whole=whole), plans, model, options)
    write_files(files, folder, force=True)
    return Repositories.open(folder)


class Users:
    """Users who ask one after another and compare every answer."""

    def __init__(
        self, url: str, model: str, inputs: Mapping[str, Array], expected: Mapping[str, Array]
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._model = url, model
        self._inputs, self._expected = dict(inputs), dict(expected)
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    @property
    def answered(self) -> int:
        """Right answers until now."""
        return self.outcomes["right"]

    @property
    def others(self) -> list[str]:
        """What was no right answer."""
        return [text for text in self.outcomes if text != "right"]

    @contextmanager
    def asking(self, count: int) -> Iterator[None]:
        """So many users at once, for the time of the block."""
        self._stopped.clear()
        threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        client = connect(self._url)
        while not self._stopped.is_set():
            try:
                found = infer(client, self._model, self._inputs)
                same = found.keys() == self._expected.keys() and all(
                    np.array_equal(found[name], self._expected[name]) for name in found
                )
                outcome = "right" if same else "wrong"
            except ServerError as error:
                outcome = str(error)
            with self._lock:
                self.outcomes[outcome] += 1
        client.close()
