"""The check of ensembles before anything is written: each fault that it names, made on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.configs import Configs, read_configs
from tests.helpers.plans import files_of, make_plan
from tritier.errors import InputError
from tritier.repository.check import check_wiring

# Remote and local components, a mailbox on c, puts from the entry and from b.
COMPONENTS = ["a: t0 -> t1", "b: t1 -> t2 t3", "c: t1 t2 -> t4", "a: t3 t4 -> t9"]


@pytest.fixture
def configs() -> Configs:
    """The configs of a good plan."""
    return read_configs(files_of(make_plan(COMPONENTS)))


def find(configs: Configs, ending: str) -> tuple[str, str]:
    """Key of the model whose name ends so."""
    (key,) = [key for key in configs if key[1].endswith(ending)]
    return key


def entry_step(configs: Configs, ending: str) -> Any:
    """Step of the entry ensemble that calls the model whose name ends so."""
    (step,) = [
        step
        for step in configs["a", "m"].ensemble_scheduling.step
        if step.model_name.endswith(ending)
    ]
    return step


def _no_model(configs: Configs) -> None:
    del configs[find(configs, "c1__call")]


def _model_elsewhere(configs: Configs) -> None:
    key = find(configs, "c1__call")
    configs["b", key[1]] = configs.pop(key)


def _unmapped(configs: Configs) -> None:
    del entry_step(configs, "__c3").input_map["t3"]


def _no_such_input(configs: Configs) -> None:
    entry_step(configs, "__c3").input_map["t8"] = "t3"


def _no_such_output(configs: Configs) -> None:
    entry_step(configs, "__c0").output_map["t8"] = "t8"


def _other_shape(configs: Configs) -> None:
    configs[find(configs, "__c0")].output[0].dims[0] = 3


def _other_rank(configs: Configs) -> None:
    configs[find(configs, "__c0")].output[0].dims.append(1)


def _other_type(configs: Configs) -> None:
    configs[find(configs, "__c0")].output[0].data_type = 13


def _twice(configs: Configs) -> None:
    entry_step(configs, "c1__call").output_map["t3"] = "t1"


def _overwritten_input(configs: Configs) -> None:
    entry_step(configs, "__c0").output_map["t1"] = "n0"


def _cycle(configs: Configs) -> None:
    entry_step(configs, "__c0").input_map["t0"] = "t3"


def _no_output(configs: Configs) -> None:
    configs["a", "m"].output.add(name="more", data_type=11, dims=[2])


def _other_output(configs: Configs) -> None:
    configs["a", "m"].output[0].dims[0] = 3


def _mailbox_without_key(configs: Configs) -> None:
    stage = configs[find(configs, "c2__stage")]
    del stage.ensemble_scheduling.step[0].input_map["key"]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_no_model, "a: ensemble 'm': step 'm__ID__c1__call' is not a model of this server"),
        (_model_elsewhere, "a: ensemble 'm': step 'm__ID__c1__call' is not a model of this server"),
        (_unmapped, "a: ensemble 'm': input 't3' of step 'm__ID__c3' is not mapped"),
        (_no_such_input, "a: ensemble 'm': step 'm__ID__c3' has no input 't8'"),
        (_no_such_output, "a: ensemble 'm': step 'm__ID__c0' has no output 't8'"),
        (
            _other_shape,
            "a: ensemble 'm': input 't1' of step 'm__ID__c1__call' has another type or shape than "
            "'t1'",
        ),
        (
            _other_rank,
            "a: ensemble 'm': input 't1' of step 'm__ID__c1__call' has another type or shape than "
            "'t1'",
        ),
        (
            _other_type,
            "a: ensemble 'm': input 't1' of step 'm__ID__c1__call' has another type or shape than "
            "'t1'",
        ),
        (_twice, "a: ensemble 'm': tensor 't1' is written twice"),
        (_overwritten_input, "a: ensemble 'm': tensor 'n0' is written twice"),
        (
            _cycle,
            "a: ensemble 'm': steps 'm__ID__c0', 'm__ID__c1__call', 'm__ID__c2__call', 'm__ID__c3' "
            "wait for tensors that nothing makes, or for each other",
        ),
        (_no_output, "a: ensemble 'm': nothing makes the output 'more'"),
        (
            _other_output,
            "a: ensemble 'm': the output 'n9' has another type or shape than its source",
        ),
        (
            _mailbox_without_key,
            "c: ensemble 'm__ID__c2__stage': input 'key' of step 'm__ID__mailbox' is not mapped",
        ),
    ],
)
def test_a_fault_is_named(configs: Configs, damage: Callable[[Configs], None], fault: str) -> None:
    check_wiring(configs)  # as generated, without a fault
    damage(configs)
    with pytest.raises(InputError) as caught:
        check_wiring(configs)
    plan_id = make_plan(COMPONENTS).id
    assert fault.replace("ID", plan_id) in caught.value.faults


def test_faults_of_all_servers_are_told_together(configs: Configs) -> None:
    _no_output(configs)
    _mailbox_without_key(configs)
    with pytest.raises(InputError) as caught:
        check_wiring(configs)
    assert {fault.split(":")[0] for fault in caught.value.faults} == {"a", "c"}


def test_an_optional_input_may_be_left_out(configs: Configs) -> None:
    mailbox = configs[find(configs, "__mailbox")]
    step = configs[find(configs, "c2__stage")].ensemble_scheduling.step[0]
    assert set(step.input_map) == {"key"}
    next(tensor for tensor in mailbox.input if tensor.name == "t2").optional = False
    with pytest.raises(InputError, match=r"input 't2' of step '.*__mailbox' is not mapped"):
        check_wiring(configs)


def test_a_size_of_minus_one_agrees_with_any(configs: Configs) -> None:
    configs[find(configs, "__c0")].output[0].dims[0] = -1
    check_wiring(configs)


def test_the_batch_dimension_counts() -> None:
    plan = make_plan(COMPONENTS, shapes={f"t{i}": ["N", 4] for i in range(10)})
    configs = read_configs(files_of(plan, batch=8))
    check_wiring(configs)
    configs[find(configs, "__c0")].max_batch_size = 0
    with pytest.raises(InputError, match="another type or shape"):
        check_wiring(configs)
