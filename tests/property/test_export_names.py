"""Names of services, for any names that a servers file may have."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tritier.errors import InputError
from tritier.export.names import MAX_LABEL, dns_label, dns_labels

# Of documents/servers.py.
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
# RFC 1035, section 2.3.1; Kubernetes asks the same of names of services.
LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@given(NAMES)
@example("0")
@example("a" * MAX_LABEL + "-b")
@example("a" * (MAX_LABEL - 1) + "_b")
@example("9" * 63)
def test_a_label_is_valid(name: str) -> None:
    label = dns_label(name)
    assert LABEL.fullmatch(label)
    assert len(label) <= MAX_LABEL


@given(NAMES.filter(lambda name: LABEL.fullmatch(name) is not None and len(name) <= MAX_LABEL))
def test_a_name_that_is_a_label_stays(name: str) -> None:
    assert dns_label(name) == name


@given(st.lists(NAMES, unique=True, min_size=1, max_size=8), st.sets(NAMES, max_size=3))
@example(["a-b", "a_b"], set())
@example(["a" * 50, "a" * 51], set())
@example(["1", "tier-1"], set())
@example(["grafana"], {"grafana"})
def test_labels_are_unique_or_refused_with_their_names(
    names: list[str], reserved: set[str]
) -> None:
    single = [dns_label(name) for name in names]
    fits = len(set(single)) == len(names) and not reserved & set(single)
    if fits:
        assert dns_labels(names, reserved) == dict(zip(names, single, strict=True))
        return
    with pytest.raises(InputError) as caught:
        dns_labels(names, reserved)
    assert any(f"'{name}'" in str(caught.value) for name in names)
