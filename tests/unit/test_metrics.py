"""Energy in the text of Triton's metrics."""

from __future__ import annotations

from tritier.deployment.metrics import energy_of, gpu_energy_joule

TEXT = """\
# HELP nv_energy_consumption GPU energy consumption in joules since the Triton Server started
# TYPE nv_energy_consumption counter
nv_energy_consumption{gpu_uuid="GPU-1"} 1024.5
nv_energy_consumption{gpu_uuid="GPU-2"} 0.5
# HELP nv_gpu_power_usage GPU power usage in watts
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{gpu_uuid="GPU-1"} 61.2
"""


def test_energy_of_all_gpus_is_added_up() -> None:
    assert energy_of(TEXT) == 1025.0


def test_without_a_gpu_there_is_no_energy() -> None:
    assert energy_of("# HELP nv_inference_count x\nnv_inference_count 1\n") is None


def test_a_server_that_does_not_answer_has_no_energy() -> None:
    assert gpu_energy_joule("127.0.0.1:9") is None
