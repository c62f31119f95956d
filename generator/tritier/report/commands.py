"""The commands that make the files behind a report, with what these files say of their options.

What no file holds stands as words in capitals, such as SERVERS.yaml. All commands are such that
`tritier` takes their options.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from tritier.documents import BenchResult, Plan, PlanReport, TimingProfile
from tritier.documents.load import LoadResult
from tritier.documents.noise import NoiseSettings
from tritier.report.material import Material, Paths, Read

SERVERS = "SERVERS.yaml"
RANGES = "RANGES.json"
PRICES = "PRICES.yaml"
PROFILES = "PROFILES"
# Profiles of other programs may have fewer; `tritier profile` takes no less.
_LEAST_RUNS = 3
_LIMITS = {"latency": "--max-latency", "energy": "--energy"}
_LIMITS_OF_SERVERS = {"energy of ": "--server-energy", "memory of ": "--memory"}


def model_file(material: Material) -> str:
    """The ONNX model, or how it might be called."""
    return str(material.paths.model or f"{material.plan.model.name}.onnx")


def repositories(material: Material) -> str:
    """The generated folder."""
    return str(material.paths.plan) if material.manifest is not None else "repos"


def monitor_command(output: Path | str = "network.json") -> str:
    """Measures links."""
    return _shell("monitor", SERVERS, "-o", output)


def profile_commands(material: Material) -> Iterable[str]:
    """One for each folder and way to measure; `tritier profile` writes into OUTPUT/MODEL."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for read in material.timing:
        parents = read.path.parents
        folder = parents[1] if len(parents) > 1 else ".."
        groups.setdefault((*_profile_words(read.document), "-o", str(folder)), []).append(
            read.document.server
        )
    for words, servers in groups.items():
        only = [] if len(groups) == 1 else [x for name in servers for x in ("--server", name)]
        yield _shell("profile", model_file(material), "--servers", SERVERS, *only, *words)


def _profile_words(profile: TimingProfile) -> Iterable[str]:
    settings = profile.settings
    yield from ("--method", settings.method)
    if settings.runs >= _LEAST_RUNS:
        yield from ("--runs", str(settings.runs))
    yield from ("--warmup", str(settings.warmup))
    for name, value in profile.dims.items():
        yield from ("--dim", f"{name}={value}")


def profile_command(material: Material) -> str:
    """Makes timing profiles, where there are none."""
    return _shell("profile", model_file(material), "--servers", SERVERS, "-o", "profiles")


def noise_command(material: Material, output: Path | str = "noise.json") -> str:
    """Learns the noise model; which images that takes is held by no file."""
    words = ["--images", "FOLDER", "--preprocessing", "NAME", "-o", str(output)]
    if material.noise is not None:
        words = [*_noise_words(material.noise.document.settings), *words]
    return _shell("noise", model_file(material), *words)


def _noise_words(settings: NoiseSettings) -> Iterable[str]:
    yield from ("--metric", settings.metric, "--seed", str(settings.seed))
    kinds = settings.quantization
    yield from ("--activation-type", kinds.activation_type, "--weight-type", kinds.weight_type)
    yield from ["--per-channel"] if kinds.per_channel else []
    yield from ["--reduce-range"] if kinds.reduce_range else []
    yield from ["--real-kernels"] if settings.kernels == "real" else []
    yield from ["--degree", str(settings.degree)] if settings.degree is not None else []


def plan_command(material: Material, pareto: int | None = None, report: bool = False) -> str:
    """Makes the plan again. `report`: with a planning report even if there is none; `pareto`: with
    the front too, and so many compromises more."""
    planned = report or pareto is not None or material.paths.timing or material.planning
    words = _solved(material, pareto) if planned else _assigned(material.plan)
    return _shell("plan", model_file(material), "--servers", SERVERS, *words, *_name(material),
                  "-o", material.plan_file)  # fmt: skip


def _name(material: Material) -> list[str]:
    name = material.plan.model.name
    return [] if name == Path(model_file(material)).stem else ["--name", name]


def _assigned(plan: Plan) -> list[str]:
    """By hand: which layers, is held by no file in that form."""
    return [
        "--assignment",
        "ASSIGNMENT.yaml",
        *(["--ranges", RANGES] if _needs_ranges(plan) else []),
    ]


def _solved(material: Material, pareto: int | None) -> Iterable[str]:
    paths, plan, read = material.paths, material.plan, material.planning
    for path in paths.timing or (Path(PROFILES),):
        yield from ("--timing", str(path))
    if paths.network is not None:
        yield from ("--network", str(paths.network))
    yield from _noise_limits(material)
    if _needs_ranges(plan) or paths.noise:
        yield from ("--ranges", RANGES)
    yield from _wires(plan)
    if read is not None:
        yield from _planned(read.document)
    if pareto is None and read is not None and read.document.front:
        pareto = sum(not item.supported for item in read.document.front)
    if pareto is not None:
        yield from ("--pareto", str(pareto))
    yield from ("--report", str(read.path if read else "planning.json"))


def _needs_ranges(plan: Plan) -> bool:
    coded = any(wire.codec in ("int8", "uint8") for wire in plan.wires)
    return bool(plan.quantized_layers) or coded


def _noise_limits(material: Material) -> list[str]:
    """The noise model, with the limits of the planning report; without limits all is allowed."""
    if material.paths.noise is None:
        return []
    report = material.planning.document if material.planning else None
    limits: dict[str, float] = {}
    for item in report.limits if report else ():
        if item.what.startswith("noise of "):
            output = item.what.removeprefix("noise of ")
            for end in (" with its margin", ", measured"):
                output = output.removesuffix(end)
            limits[output] = item.limit
    words = ["--noise", str(material.paths.noise)]
    for output, limit in limits.items():
        words += ["--max-noise", f"{output}={limit:.6g}"]
    if report is None:
        return [*words, "--max-noise", "OUTPUT=X"]
    return words if limits else [*words, "--unlimited-noise"]


def _wires(plan: Plan) -> list[str]:
    """Codecs that the plan uses were allowed; int8 for the tensors that cross so."""
    words: list[str] = []
    for wire in plan.wires:
        if wire.codec == "as_is":
            continue
        words += ["--allow-wire", f"{wire.source}:{wire.target}={_allowed(wire.codec)}"]
        words += ["--int8-tensor", wire.tensor] if _allowed(wire.codec) == "int8" else []
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for pair in dict.fromkeys(pairs) for word in pair]


def _allowed(codec: str) -> str:
    return "int8" if codec == "uint8" else codec


def _planned(report: PlanReport) -> Iterable[str]:
    yield from ("--objective", report.objective)
    if report.latency_weight is not None and report.objective == "weighted":
        yield from ("--latency-weight", f"{report.latency_weight:g}")
    for item in report.limits:
        if item.what in _LIMITS:
            yield from (_LIMITS[item.what], f"{item.limit:.6g}")
        for start, option in _LIMITS_OF_SERVERS.items():
            if item.what.startswith(start):
                yield from (option, f"{item.what.removeprefix(start)}={item.limit:.6g}")
    if report.figures.cost_usd is not None:
        yield from ("--prices", PRICES)


def generate_commands(material: Material) -> Iterable[str]:
    """Writes and loads the model repositories."""
    whole = any(not material.is_split(read.document.model) for read in material.bench)
    words = ["--with-whole"] if whole else []
    yield _shell("generate", material.plan_file, "--model", model_file(material), *words,
                 "-o", repositories(material))  # fmt: skip
    yield _shell("deploy", repositories(material), "--servers", SERVERS)


def bench_command(material: Material, read: Read[BenchResult] | None = None) -> str:
    """Repeats a sweep, or makes one."""
    if read is None:
        return _shell("bench", material.plan.model.name, "--servers", SERVERS, "--concurrency",
                      "1:16", "--batch", "1,8", "-o", "bench.json")  # fmt: skip
    result = read.document
    words = ["--url", result.url]
    words += ["--servers", SERVERS] if any(len(x.servers) > 1 for x in result.levels) else []
    words += [*_loads(result), *_bench_settings(result)]
    return _shell("bench", result.model, *words, "-o", read.path)


def _loads(result: BenchResult) -> Iterable[str]:
    option = "--concurrency" if result.mode == "concurrency" else "--request-rate"
    found = result.search
    offered = sorted({level.offered for level in result.levels})
    batches = sorted({level.batch for level in result.levels})
    if found is not None:
        yield from (option, f"{found.lowest:g}:{found.highest:g}:{found.step:g}", "--search")
    elif offered:
        yield from (option, ",".join(f"{x:g}" for x in offered))
    if batches:
        yield from ("--batch", ",".join(map(str, batches)))
    if result.mode == "request_rate":
        yield from ("--arrivals", result.settings.arrivals)


def _bench_settings(result: BenchResult) -> Iterable[str]:
    settings = result.settings
    for name, dims in settings.shapes.items():
        own = dims[1:] if settings.batching == "max_batch_size" else dims
        if own:
            yield from ("--shape", f"{name}:{','.join(map(str, own))}")
    yield from ("--input", settings.input, "--percentile", str(settings.percentile))
    if settings.latency_limit_ms is not None:
        yield from ("--latency-limit-ms", f"{settings.latency_limit_ms:g}")
    yield from ("--requests", str(settings.window_requests))
    yield from ("--max-requests", str(settings.max_window_requests))
    yield from ("--max-windows", str(settings.max_windows))
    yield from ("--stability", f"{settings.stability_percent:g}")
    if result.levels and not (result.sustained or any(x.check for x in result.levels)):
        yield from ("--check-s", "0")


def load_command(material: Material, read: Read[LoadResult] | None = None) -> str:
    """Repeats a load test, or makes one; the inputs are those of the seed unless it says other."""
    start = ("load", material.plan.model.name, "--repos", repositories(material))
    if read is None:
        return _shell(*start, "--shape", "steps", "--users", "1:16", "-o", "load.json")
    result, settings = read.document, read.document.settings
    words = ["--url", result.url]
    shape = result.shape or "constant"
    words += ["--shape", shape, "--users", _users(result)]
    words += ["--duration", f"{max(1, round(result.duration_s))}s", "--seed", str(settings.seed)]
    count, _, kind = settings.inputs.partition(" ")
    if kind.startswith("random inputs") and count.isdecimal():
        words += ["--count", count]
    else:
        words += ["--images", "FOLDER", "--preprocessing", "NAME"]
    for name, weight in settings.classes.items():
        words += ["--class", f"{name}={weight}"]
    words += ["--timeout-ms", str(settings.timeout_ms), "--pause-ms", f"{settings.pause_ms:g}"]
    words += ["--workers", str(settings.workers)]
    return _shell("load", result.model, *start[2:], *words, "-o", read.path)


def _users(result: LoadResult) -> str:
    """As the shape takes them."""
    users = result.users or (1,)
    if result.shape in ("spike", "ramp"):
        return f"{min(users)}:{max(users)}"
    return ",".join(map(str, users if result.shape == "steps" else users[:1]))


def compare_command(material: Material) -> str:
    """Predicts and measures the plan."""
    paths, found = material.paths, material.comparison
    words = ["--servers", SERVERS, "--model", model_file(material)]
    for path in paths.timing or (Path(PROFILES),):
        words += ["--timing", str(path)]
    words += ["--network", str(paths.network)] if paths.network else []
    words += ["--repos", repositories(material)] if material.manifest is not None else []
    if found is not None and found.document.measured is not None:
        words += ["--rounds", str(found.document.measured.latency.n)]
    output = paths.comparison or "comparison.json"
    return _shell("compare", material.plan_file, *words, "-o", output)


def report_command(paths: Paths, title: str | None = None) -> str:
    """Writes this report, with the files that were given."""
    words = [str(paths.plan)]
    for option, many in (
        ("--model", (paths.model,)), ("--planning", (paths.planning,)), ("--timing", paths.timing),
        ("--network", (paths.network,)), ("--noise", (paths.noise,)), ("--bench", paths.bench),
        ("--load", paths.load), ("--cost", paths.cost), ("--comparison", (paths.comparison,)),
    ):  # fmt: skip
        words += [word for path in many if path for word in (option, str(path))]
    words += ["--title", title] if title else []
    return _shell("report", *words, "-o", "report.html")


def _shell(command: str, *words: object) -> str:
    return shlex.join(["tritier", command, *map(str, words)])
