"""Families of plans change under load: nobody notices, and what fails is undone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.helpers.families import Users, family_folder
from tests.integration.conftest import Bench, peer_plan, placement, three_servers
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import Addresses, find_addresses, undeploy
from tritier.deployment.lab import Lab
from tritier.deployment.switch import SwitchOptions, load_missing, switch
from tritier.divider import WholeModel
from tritier.documents import Plan
from tritier.errors import CheckFailed, InputError, ServerError
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import Repositories
from tritier.workflow import gather_inputs, plan_from_placement
from tritier.workflow.live import LiveCheck

pytestmark = pytest.mark.integration
SWITCHES = 5


def cut_plan(model: LoadedModel, groups: dict[str, str]) -> Plan:
    """Layers, by the start of their names, on servers; the rest on the device."""
    graph = build_layer_graph(model.proto)
    server_of = placement(model, groups, "device")
    return plan_from_placement(model, graph, server_of, three_servers(), "espcn")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A lab of these tests' own: a server is restarted, and what is left behind matters."""
    folder = tmp_path_factory.mktemp("switch")
    lab, spec = Lab(folder / "lab"), three_servers()
    try:
        yield Bench(spec, lab, lab.up(spec, None), folder)
    finally:
        lab.down()


@pytest.fixture(scope="module")
def folders(own: Bench, espcn: LoadedModel) -> list[Repositories]:
    """Three families: with a mailbox, with one cut, and two plans of which one is in the second."""
    mail = peer_plan(espcn, own.spec)
    edge = cut_plan(espcn, {"conv1": "edge", "relu1": "edge"})
    cloud = cut_plan(espcn, {"conv2": "cloud", "relu2": "cloud"})
    chosen = {"a": [mail], "b": [edge], "c": [cloud, edge]}
    return [family_folder(espcn, plans, own.folder / name) for name, plans in chosen.items()]


def options_of(own: Bench, repositories: Repositories, model: LoadedModel) -> SwitchOptions:
    check = LiveCheck(repositories, model, gather_inputs(repositories.plan, 1, 0))
    metrics = next(s.metrics_url for s in own.state.servers if s.name == "device")
    return SwitchOptions("always", check, metrics)


def deployed(own: Bench, repositories: Repositories, model: LoadedModel) -> Addresses:
    at = find_addresses(repositories, own.spec, own.state)
    switch(repositories, at, options_of(own, repositories, model))
    return at


def loaded(at: Addresses) -> dict[str, set[str]]:
    found = {}
    for name, url in at.urls.items():
        with TritonServer(name, url) as server:
            found[name] = set(server.loaded())
    return found


def models_of(repositories: Repositories) -> dict[str, set[str]]:
    return {
        name: {model.name for model in repositories.models_of(name)}
        for name in ("device", "edge", "cloud")
    }


def test_switches_under_load_fail_no_request(
    own: Bench, espcn: LoadedModel, folders: list[Repositories]
) -> None:
    at = deployed(own, folders[0], espcn)
    arrays = gather_inputs(folders[0].plan, 1, 0)[0]
    expected = WholeModel(espcn.path, "disabled").run(arrays)
    users = Users(at.urls["device"], "espcn", arrays, expected)
    with users.asking(3):
        for turn in range(1, SWITCHES + 1):
            before, folder = users.answered, folders[turn % len(folders)]
            done = switch(folder, at, options_of(own, folder, espcn))
            assert (done.family, done.is_new_router) == (folder.id, True)
            assert done.before == folders[(turn - 1) % len(folders)].id
            assert done.warnings == ()
            assert loaded(at) == models_of(folder)
            assert users.answered > before
    assert users.others == []
    # Control: without a plan, the same users see that.
    assert undeploy(folder, at) == []
    with users.asking(1):
        time.sleep(0.5)
    assert users.others


def test_what_is_deployed_is_only_checked(
    own: Bench, espcn: LoadedModel, folders: list[Repositories]
) -> None:
    at = deployed(own, folders[1], espcn)
    asked: list[str] = []
    again = switch(folders[1], at, SwitchOptions("always", lambda name, *_: asked.append(name)))
    assert not again.changed
    assert asked == [f"espcn__{folders[1].plan.id}", "espcn"]


def test_a_broken_plan_is_rolled_back(
    own: Bench, espcn: LoadedModel, folders: list[Repositories]
) -> None:
    at = deployed(own, folders[1], espcn)
    before = loaded(at)
    broken = family_folder(espcn, folders[0].plans, own.folder / "broken")
    onnx = next(path for path in broken.sub_models(broken.plan.id).values() if "cloud" in str(path))
    onnx.write_bytes(onnx.read_bytes()[:-2000])
    arrays = gather_inputs(broken.plan, 1, 0)[0]
    expected = WholeModel(espcn.path, "disabled").run(arrays)
    users = Users(at.urls["device"], "espcn", arrays, expected)
    with users.asking(2), pytest.raises(ServerError, match=r"server 'cloud'.*can't load model"):
        switch(broken, at, options_of(own, broken, espcn))
    assert users.answered
    assert users.others == []
    assert loaded(at) == before
    for name, url in at.urls.items():  # a model that failed to load must not leave this behind
        with TritonServer(name, url) as server:
            deadline = time.monotonic() + 10
            while not server.is_ready():
                assert time.monotonic() < deadline, name
                time.sleep(0.1)
    with pytest.raises(InputError, match="not the file that was generated"):
        Repositories.open(broken.path)


@pytest.mark.parametrize("stage", ["plan", "router"])
def test_wrong_answers_are_rolled_back(
    own: Bench, espcn: LoadedModel, folders: list[Repositories], stage: str
) -> None:
    at = deployed(own, folders[1], espcn)
    before = loaded(at)

    def check(name: str, plan_id: str | None, _: str) -> None:
        if (plan_id is None) == (stage == "router"):
            raise CheckFailed(f"{name} is wrong")

    with pytest.raises(CheckFailed, match="is wrong"):
        switch(folders[0], at, SwitchOptions("always", check))
    assert loaded(at) == before
    arrays = gather_inputs(folders[1].plan, 1, 0)
    LiveCheck(folders[1], espcn, arrays)("espcn", None, at.urls["device"])
    again = switch(folders[1], at, options_of(own, folders[1], espcn))
    # The router's files are those of the other folder, so it is loaded again; nothing else is.
    assert again.loaded in ((), ("device/espcn",))


def test_a_router_takes_the_place_of_a_single_plan(
    own: Bench, espcn: LoadedModel, folders: list[Repositories]
) -> None:
    for folder in folders:
        undeploy(folder, find_addresses(folder, own.spec, own.state))
    plan = cut_plan(espcn, {"conv4": "edge"})
    with own.deployed(plan, espcn) as (_, at):
        done = switch(folders[1], at, options_of(own, folders[1], espcn))
        assert (done.before, done.is_new_router) == (None, True)
        assert loaded(at) == models_of(folders[1])


def test_a_restarted_server_gets_what_it_lacks(
    own: Bench, espcn: LoadedModel, folders: list[Repositories]
) -> None:
    at = deployed(own, folders[1], espcn)
    url = own.state.urls["edge"]
    own.state = own.lab.restart("edge")
    assert own.state.urls["edge"] == url
    assert loaded(at)["edge"] == set()
    found = load_missing(folders[1], at, ["edge"], "always")
    assert {name.partition("/")[2] for name in found} == models_of(folders[1])["edge"]
    assert load_missing(folders[1], at, ["edge"], "always") == []
    check = LiveCheck(folders[1], espcn, gather_inputs(folders[1].plan, 1, 0))
    deadline = time.monotonic() + 10  # the proxy connects anew
    while True:
        try:
            check(f"espcn__{folders[1].plan.id}", folders[1].plan.id, at.urls["device"])
            break
        except ServerError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
