"""What is asked of one Triton server over gRPC, with errors that name it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tritonclient.utils import InferenceServerException

from tritier.deployment.access import connect, explained, is_of_protection
from tritier.errors import ServerError

_POLL_S = 0.1
_CALL_TIMEOUT_S = 10.0
# How long a refusal lasts before it is believed: a port that is changing hands closes connections
# too, and gRPC repeats a failure for a second before it tries anew.
_REFUSED_S = 3.0
# Loading may compile kernels and warm up.
_LOAD_TIMEOUT_S = 600.0


class TritonServer:
    """A server by name and address; close it, or use it in a `with` block.

    An `Address` brings certificates and the key of administrative APIs along; a plain text reaches
    servers that need neither.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self._client = connect(url, admin=True)

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def wait_until_live(self, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> None:
        """Wait until the server answers under its own name.

        `alive` tells whether waiting still makes sense. The name is compared because gRPC binds
        with port reuse: somebody else may answer on this port.
        """
        deadline = time.monotonic() + timeout_s
        refused_since = None
        while True:
            try:
                if self._client.is_server_live(client_timeout=1.0):
                    break
            except InferenceServerException as error:
                now = time.monotonic()
                lasts = is_of_protection(error, self.url)
                refused_since = (refused_since or now) if lasts else None
                if refused_since is not None and now > refused_since + _REFUSED_S:
                    raise ServerError(
                        f"server '{self.name}' ({self.url}) can't be reached: "
                        f"{explained(error, self.url)}"
                    ) from None
            if not alive():
                raise ServerError(f"server '{self.name}' ended while it was starting")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"server '{self.name}' at {self.url} is not live after {timeout_s:.0f} s"
                )
            time.sleep(_POLL_S)
        found = self._client.get_server_metadata(client_timeout=_CALL_TIMEOUT_S).name
        if found != self.name:
            raise ServerError(
                f"'{found}' answers at {self.url}, where server '{self.name}' was started: the "
                "port is used by another server; stop it or change the url"
            )

    def is_ready(self) -> bool:
        """Whether the server says that it and all its models are ready; raises ServerError."""
        with self._named("can't be reached"):
            return bool(self._client.is_server_ready(client_timeout=_CALL_TIMEOUT_S))

    def version(self) -> str:
        """Triton's version; raises ServerError if it can't be reached."""
        with self._named("can't be reached"):
            metadata = self._client.get_server_metadata(client_timeout=_CALL_TIMEOUT_S)
            return str(metadata.version)

    def index(self) -> dict[str, str]:
        """State of each model of the repository, empty for one that was never loaded."""
        with self._named("can't list its models"):
            response = self._client.get_model_repository_index(client_timeout=_CALL_TIMEOUT_S)
            return {model.name: model.state for model in response.models}

    def loaded(self) -> list[str]:
        """Models that are ready, also those that were pushed, which the index does not list."""
        with self._named("can't say which models are loaded"):
            response = self._client.get_inference_statistics("", client_timeout=_CALL_TIMEOUT_S)
            return sorted({item.name for item in response.model_stats})

    def serves(self, model: str) -> bool:
        """Whether a model is loaded and ready."""
        with self._named(f"can't say whether model '{model}' is ready"):
            return bool(self._client.is_model_ready(model, client_timeout=_CALL_TIMEOUT_S))

    def config(self, model: str) -> Any:
        """ModelConfig of a loaded model."""
        with self._named(f"has no config of model '{model}'"):
            return self._client.get_model_config(model, client_timeout=_CALL_TIMEOUT_S).config

    def load(
        self, model: str, config: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load a model and wait until it is ready.

        `config` (JSON) replaces the config of the repository, `files` the whole folder.
        """
        with self._named(f"can't load model '{model}'"):
            try:
                self._client.load_model(
                    model,
                    config=config,
                    files=dict(files) if files else None,
                    client_timeout=_LOAD_TIMEOUT_S,
                )
            except InferenceServerException as error:
                # For an ensemble whose models were pushed, Triton looks for their folders, does not
                # find them, loads the ensemble from those in memory and then reports this.
                if files is None or "failed to poll" not in str(error.message()):
                    raise
            if not self._client.is_model_ready(model, client_timeout=_CALL_TIMEOUT_S):
                raise ServerError(
                    f"server '{self.name}' ({self.url}) loaded '{model}' but says it is not "
                    "ready: look at its log"
                )

    def unload(self, model: str) -> None:
        """Unload a model and wait until it is gone."""
        with self._named(f"can't unload model '{model}'"):
            self._client.unload_model(model, client_timeout=_CALL_TIMEOUT_S)
            deadline = time.monotonic() + _LOAD_TIMEOUT_S
            while self._client.is_model_ready(model, client_timeout=_CALL_TIMEOUT_S):
                if time.monotonic() > deadline:
                    raise ServerError(f"server '{self.name}' still serves '{model}'")
                time.sleep(_POLL_S)

    def statistics(self, model: str) -> Any:
        """InferStatistics of a model's newest version, as Triton counts them (ns and counts)."""
        with self._named(f"has no statistics of model '{model}'"):
            response = self._client.get_inference_statistics(model, client_timeout=_CALL_TIMEOUT_S)
            return response.model_stats[0].inference_stats

    def all_statistics(self) -> list[Any]:
        """ModelStatistics of every version of every model that is loaded."""
        with self._named("can't tell its statistics"):
            response = self._client.get_inference_statistics("", client_timeout=_CALL_TIMEOUT_S)
            return list(response.model_stats)

    @contextmanager
    def _named(self, failure: str) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            # Triton's other answers are vague here ("failed to poll"); its log has the reason.
            known = is_of_protection(error, self.url)
            raise ServerError(
                f"server '{self.name}' ({self.url}) {failure}: {explained(error, self.url)}"
                + ("" if known else "; the reason is in the server's log")
            ) from None
