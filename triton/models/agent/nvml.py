"""NVIDIA GPUs through NVML, if the package nvidia-ml-py is there and finds a driver.

What a GPU does not tell (a driver without the function, a part of a GPU) is left out.
"""

import contextlib


def gpus():
    """[{name, memory_total_bytes, memory_free_bytes}]."""
    return list(_of_each(_facts).values())


def power_watt():
    """{what: W} at present."""
    return _of_each(lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3)


def energy_joule():
    """{what: J} since the driver was loaded."""
    return _of_each(lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3)


def _facts(nvml, gpu):
    memory, name = nvml.nvmlDeviceGetMemoryInfo(gpu), nvml.nvmlDeviceGetName(gpu)
    return {
        "name": name.decode(errors="replace") if isinstance(name, bytes) else name,
        "memory_total_bytes": int(memory.total),
        "memory_free_bytes": int(memory.free),
    }


def _of_each(read):
    """{"nvml gpu-0": read(nvml, GPU), ...} of the GPUs that answer."""
    found = {}
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, another version: there is nothing to read
        return found
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(Exception):
                gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
                found[f"nvml gpu-{index}"] = read(pynvml, gpu)
    except Exception:  # even the count is not told
        return found
    finally:
        with contextlib.suppress(Exception):
            pynvml.nvmlShutdown()
    return found
