"""What Tritier needs of a server, and what a server lacks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tritier.deployment.versions import RELEASES, Version, dotted, insecurity, version_of
from tritier.documents import HostFacts, Server, TritonFacts
from tritier.network.contact import Contact

_MAX_CLOCK_OFFSET_MS = 1000.0
# How Triton refuses to load or unload in another mode than explicit model control.
_NO_MODEL_CONTROL = "explicit model load"
# How the agent does, see triton/models/agent/model.py.
_SWITCHED_OFF = "switched off on this server"
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}


@dataclass(frozen=True)
class Feature:
    """Something that Tritier uses, the first Triton that has it, and for what."""

    name: str
    release: str
    use: str

    @property
    def version(self) -> Version:
        """Of the server in that release."""
        return RELEASES[self.release]


@dataclass(frozen=True)
class Extension:
    """An extension of Triton's protocol, for what it is used, and whether nothing works without."""

    name: str
    use: str
    required: bool


@dataclass(frozen=True)
class Findings:
    """What speaks against a server (`problems`), and what should be known of it (`warnings`)."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


FEATURES = (
    Feature(
        "response senders in Python models that are not decoupled",
        "24.06",
        "proxies, mailboxes and the agent answer from threads of their own",
    ),
    Feature(
        "cancelled requests are told to Python models",
        "23.10",
        "proxies and mailboxes stop waiting when a client has given up",
    ),
)
EXTENSIONS = (
    Extension("model_repository", "deploy and the agent load models with it", required=True),
    Extension("model_configuration", "deploy tells plans apart with it", required=True),
    Extension("statistics", "without it the times of components stay unknown", required=False),
)


def find_problems(server: Server, contact: Contact) -> Findings:
    """What one contact says against a server of servers.yaml."""
    if contact.state == "unreachable":
        return Findings((f"can't be reached at {contact.url}: {contact.failure}",), ())
    problems, warnings = [], []
    if contact.state == "not_ready":
        problems.append("is not ready: one of its models failed to load, see its log")
    if contact.triton is not None:
        problems += [*_old_triton(contact.triton), *_lacking(contact.triton, required=True)]
        warnings += [
            *filter(None, [insecurity(contact.triton.version)]),
            *_lacking(contact.triton, required=False),
        ]
    if _NO_MODEL_CONTROL in contact.failure:
        problems.append("loads no models on demand: start it with --model-control-mode=explicit")
    elif _SWITCHED_OFF in contact.failure:
        warnings.append("the agent is switched off there (TRITIER_AGENT): it measures nothing")
    elif contact.failure:
        warnings.append(f"the agent failed: {contact.failure}")
    if contact.found_agent:
        warnings.append(
            "the agent was loaded already and stays: another command measures with it, or was "
            "killed; then unload the model 'tritier_agent'"
        )
    if contact.agent is not None:
        problems += _impossible(server, contact.agent.host)
        warnings += _doubtful(server, contact.agent.host)
        offset_ms = contact.agent.clock_offset_ms.value
        if abs(offset_ms) > _MAX_CLOCK_OFFSET_MS:
            way = "ahead" if offset_ms > 0 else "behind"
            warnings.append(
                f"its clock is {abs(offset_ms) / 1e3:.1f} s {way}: times in its log and in "
                "documents don't fit together; let NTP set it"
            )
    return Findings(tuple(problems), tuple(warnings))


def _old_triton(triton: TritonFacts) -> Iterator[str]:
    version = version_of(triton.version)
    for feature in FEATURES:
        if version is not None and version < feature.version:
            yield (
                f"Triton {triton.version} is too old: {feature.name} need "
                f"{dotted(feature.version)} ({feature.release}) or newer; {feature.use}"
            )


def _lacking(triton: TritonFacts, required: bool) -> Iterator[str]:
    for extension in EXTENSIONS:
        if extension.required == required and extension.name not in triton.extensions:
            yield f"Triton has no extension '{extension.name}': {extension.use}"


def _impossible(server: Server, host: HostFacts) -> Iterator[str]:
    provider = PROVIDERS[server.execution_provider]
    if host.onnxruntime is not None and provider not in host.providers:
        yield (
            f"execution_provider {server.execution_provider} needs {provider}; onnxruntime "
            f"{host.onnxruntime} there has {', '.join(host.providers)}: install one that has it or "
            "change servers.yaml"
        )
    total_mib = host.memory_total_bytes / 2**20
    if server.memory_mib is not None and server.memory_mib > total_mib:
        yield (
            f"memory_mib {server.memory_mib:g} of servers.yaml is more than the {total_mib:.0f} "
            "MiB that the server may use"
        )


def _doubtful(server: Server, host: HostFacts) -> Iterator[str]:
    if host.onnxruntime is None:
        yield "Python there has no onnxruntime: layers can't be measured; pip install onnxruntime"
    if server.threads > host.cores:
        yield (
            f"threads {server.threads} of servers.yaml are more than the {host.cores} cores that "
            "the server may use: they would wait for each other"
        )
