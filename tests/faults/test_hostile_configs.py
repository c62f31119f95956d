"""Promise 8, the configs: a model with hostile parameters is refused or works, and harms no other.

The parameters of the Python models of the data plane are spoilt one at a time, in an order that is
drawn; TRITIER_HOSTILE_CONFIGS says how many are tried.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import pytest
from google.protobuf import json_format

from tests.faults.hostile import Subject, draw_of, valid_request
from tests.faults.target import Target, check_unharmed, processes_of
from tests.helpers.faults import is_alive, server_of
from tritier.deployment.client import TritonServer
from tritier.errors import ServerError
from tritier.repository import parse_config

pytestmark = pytest.mark.integration
_CONFIGS = int(os.environ.get("TRITIER_HOSTILE_CONFIGS", "18"))
_NAME = "hostile"
_PATIENCE_MS = 500
_SLACK_S = 8.0
_VALUES: list[str | None] = [
    "",
    "abc",
    "-1",
    "0",
    "1e999",
    "9" * 40,
    "[]",
    "{}",
    "null",
    '{"a": 1}',
    "[[1]]",
]
_VALUES += ["\t\n", "é" * 500, '["a", "b", "c"]', '{"x": null}', "127.0.0.1:1", "[" * 3000, None]


def test_hostile_configs(target: Target) -> None:
    before = processes_of(target)
    refusals: list[str] = []
    loaded = 0
    for server, config, files in _drawn(target):
        with TritonServer(server, target.urls[server]) as client:
            started_s = time.monotonic()
            try:
                client.load(_NAME, json.dumps(config), files)
                loaded += 1
                _ask(target, server, client)
                client.unload(_NAME)
            except ServerError as error:
                refusals.append(str(error))
            assert time.monotonic() - started_s < 40
        assert is_alive(server_of(target.bench.state, server)), config["parameters"]
    # Some are refused and some only mean something else: else this tests nothing.
    assert refusals
    assert loaded
    assert all("can't load" in text for text in refusals), refusals
    check_unharmed(target, before)


def _ask(target: Target, server: str, client: TritonServer) -> None:
    """What has loaded answers, rightly or not, when a request's own deadline has passed."""
    subject = Subject(server, _NAME, "mailbox", client.config(_NAME))
    if not any(tensor.name == "poison" for tensor in subject.config.input):
        subject = Subject(server, _NAME, "other", subject.config)
    for number in range(3):
        request = valid_request(subject, draw_of(9, number))
        request.parameters["timeout"].int64_param = _PATIENCE_MS * 1000
        started_s = time.monotonic()
        status, answer = target.send(server, request.SerializeToString())
        took_s = time.monotonic() - started_s
        assert took_s < _PATIENCE_MS / 1000 + _SLACK_S, (status, answer, subject.config.parameters)


def _drawn(target: Target) -> list[tuple[str, dict[str, Any], dict[str, bytes]]]:
    """(server, config, files) of models of which one parameter is not what it should be."""
    repositories = target.repositories
    cases = []
    kinds: set[str] = set()
    for model in repositories.manifest.models:
        folder = repositories.folder(model)
        if not (folder / "1" / "model.py").is_file() or model.kind in kinds:
            continue
        kinds.add(model.kind)
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        config = json_format.MessageToDict(
            parse_config(text, model.name), preserving_proto_field_name=True
        )
        config["name"] = _NAME
        files = {f"file:1/{p.name}": p.read_bytes() for p in (folder / "1").glob("*.py")}
        for name in config.get("parameters", {}):
            cases += [(model.server, _spoilt(config, name, v), files) for v in _VALUES]
    assert {"remote", "mailbox", "key", "router"} <= kinds, kinds
    return random.Random(1).sample(cases, min(_CONFIGS, len(cases)))


def _spoilt(config: dict[str, Any], name: str, value: str | None) -> dict[str, Any]:
    parameters = dict(config["parameters"])
    if value is None:
        del parameters[name]
    else:
        parameters[name] = {"string_value": value}
    return {**config, "parameters": parameters}
