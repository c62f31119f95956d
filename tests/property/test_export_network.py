"""Whatever the plan: who may reach whom in a cluster is who calls whom in the plan."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.manifest_checks import name_faults
from tests.helpers.manifests import edges, of_kind, read_export
from tests.helpers.plans import files_of, make_plan
from tritier.documents import Plan, ServersSpec
from tritier.export import read_tiers
from tritier.export.kubernetes import kubernetes_files
from tritier.export.kubernetes_options import KubernetesOptions
from tritier.repository import Repositories, write_files

_SERVERS = "abcd"


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to six components on up to four servers; each takes what the one before made, and some of
    what is older."""
    rows = []
    count = draw(st.integers(1, 6))
    for index in range(count):
        older = draw(st.sets(st.integers(0, max(index - 1, 0)), max_size=2))
        inputs = " ".join(f"t{number}" for number in sorted(older | {index}))
        rows.append(f"{draw(st.sampled_from(_SERVERS))}: {inputs} -> t{index + 1}")
    return make_plan(rows, outputs=f"t{count}", servers=_SERVERS)


def calls_of(plan: Plan) -> set[tuple[str, str]]:
    """Who calls whom, from the plan alone: the entry all that compute, and every server those that
    it hands tensors to. What goes to the entry is an answer."""
    entry = plan.entry.name
    found = {(entry, c.server) for c in plan.components}
    found |= {(w.source, w.target) for w in plan.wires if w.target != entry}
    return {(source, target) for source, target in found if source != target}


@settings(max_examples=15)
@given(plan=plans(), kserve=st.booleans())
def test_the_network_policies_are_the_calls_of_the_plan(plan: Plan, kserve: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        write_files(files_of(plan), Path(scratch) / "repos", force=False)
        rows = [{"name": x, "tier": "edge", "entry": x == "a"} for x in _SERVERS]
        spec = ServersSpec.from_data({"servers": rows})
        tiers = read_tiers(Repositories.open(Path(scratch) / "repos"), spec)
        files = kubernetes_files(tiers, KubernetesOptions(kserve=kserve))
    objects = read_export(files)
    assert edges(objects) == calls_of(plan)
    assert name_faults(objects, files["README.md"]) == []
    # Where a tensor waits there is one pod.
    boxed = {w.target for w in plan.wires if plan.entry.name not in (w.source, w.target)}
    scaled = {x["metadata"]["name"] for x in of_kind(objects, "HorizontalPodAutoscaler")}
    assert not boxed & scaled
