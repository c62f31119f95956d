"""What a switch is made of: what is old, what a model was loaded from, who may deploy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from tritier.deployment.drain import stale_models
from tritier.deployment.loading import digest_of, with_addresses
from tritier.deployment.lock import deployment_lock, lock_path
from tritier.deployment.metrics import value_of
from tritier.deployment.switch import family_of
from tritier.errors import InputError, ServerError

METRICS = """\
# HELP tritier_router_in_flight Requests in flight
# TYPE tritier_router_in_flight gauge
tritier_router_in_flight{family="11111111",model="m"} 3
tritier_router_in_flight{family="22222222",model="m"} 1
"""


def config(**parameters: str) -> Any:
    found = model_config_pb2.ModelConfig(name="m")
    for key, value in parameters.items():
        found.parameters[key].string_value = value
    return found


def test_only_plans_of_this_model_are_old() -> None:
    loaded = [
        "m", "m__aaaaaaaa", "m__aaaaaaaa__c0", "m__aaaaaaaa__c0__stage", "m__whole", "m2__aaaaaaaa",
        "m__notahash", "m__bbbbbbbb", "m__bbbbbbbb__c0", "tritier_agent", "m__aaaaaaaa__mailbox",
    ]  # fmt: skip
    assert stale_models("m", loaded, {"m", "m__bbbbbbbb", "m__bbbbbbbb__c0"}) == [
        "m__aaaaaaaa", "m__whole", "m__aaaaaaaa__c0__stage", "m__aaaaaaaa__c0",
        "m__aaaaaaaa__mailbox",
    ]  # fmt: skip


def test_a_name_is_no_pattern() -> None:
    assert stale_models("m.x", ["mxx__aaaaaaaa", "m.x__aaaaaaaa"], set()) == ["m.x__aaaaaaaa"]


def test_the_gauge_of_one_family_is_read() -> None:
    assert value_of(METRICS, "tritier_router_in_flight", {"family": "11111111"}) == 3
    assert value_of(METRICS, "tritier_router_in_flight", {"family": "33333333"}) is None
    assert value_of(METRICS, "tritier_router_in_flight", {}) == 4


def test_proxies_and_router_get_the_addresses_of_this_deployment() -> None:
    urls = {"edge": "10.0.0.7:8001", "cloud": "10.0.0.8:8001", "device": "10.0.0.9:8001"}
    proxy = config(server="edge", url="old:1", poison=json.dumps([["cloud", "old:2", "box"]]))
    changed = with_addresses(proxy, "remote", urls)
    assert changed.parameters["url"].string_value == "10.0.0.7:8001"
    assert json.loads(changed.parameters["poison"].string_value) == [
        ["cloud", "10.0.0.8:8001", "box"]
    ]
    plans = {"aaaaaaaa": {"model": "m__aaaaaaaa", "servers": ["device", "edge"]}}
    router = with_addresses(config(plans=json.dumps(plans), urls="{}"), "router", urls)
    assert json.loads(router.parameters["urls"].string_value) == {
        "device": "10.0.0.9:8001", "edge": "10.0.0.7:8001",
    }  # fmt: skip
    component = config(plan_id="aaaaaaaa")
    assert with_addresses(component, "component", urls) == component


def test_what_a_config_does_not_say_is_not_made_up() -> None:
    plain = config(plan_id="aaaaaaaa")
    before = json_format.MessageToJson(plain)
    assert digest_of(plain) == ""
    assert family_of(plain) is None
    assert family_of(None) is None
    assert family_of(config(family_id="9837f68d")) == "9837f68d"
    assert json_format.MessageToJson(plain) == before


def test_a_second_deployment_is_refused_and_a_third_is_not(tmp_path: Path) -> None:
    servers = tmp_path / "servers.yaml"
    code = (
        "import sys; from pathlib import Path\n"
        "from tritier.deployment.lock import deployment_lock\n"
        "with deployment_lock(Path(sys.argv[1])): print('in')"
    )
    other = [sys.executable, "-c", code, str(servers)]
    with deployment_lock(servers):
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
        with (
            pytest.raises(ServerError, match=r"process \d+ is deploying"),
            deployment_lock(servers),
        ):
            pass
    assert "ServerError" in refused.stderr
    assert refused.stdout == ""
    assert lock_path(servers).read_text() == ""
    with deployment_lock(servers):
        pass


def test_a_folder_that_can_not_be_written_to_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "servers.yaml"
    with pytest.raises(InputError, match="can't be written"), deployment_lock(missing):
        pass
