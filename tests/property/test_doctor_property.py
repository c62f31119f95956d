"""Whatever the release table lacks is reported, and whatever release is asked for is answered."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden.cases import FAMILY
from tests.helpers.portable import written
from tritier.doctor import ReleaseTable, release_table
from tritier.doctor.fields import field_findings, field_paths
from tritier.doctor.releases import has
from tritier.doctor.subjects import Subject, read_subjects
from tritier.errors import InputError

RELEASES = st.sampled_from(sorted(release_table().releases))


@functools.cache
def subjects() -> tuple[Subject, ...]:
    """A model of a family for each set of fields; their configs are all that is looked at."""
    with tempfile.TemporaryDirectory() as scratch:
        models = read_subjects(written(FAMILY, Path(scratch))).models
    return tuple({frozenset(field_paths(item.config)): item for item in models}.values())


@functools.cache
def used() -> list[str]:
    """Every field that they use."""
    return sorted({path for item in subjects() for path in field_paths(item.config)})


def moved(gone: set[str], since: str | None) -> ReleaseTable:
    """The table with these fields first known in another release, or not at all."""
    data = release_table().model_dump(mode="json")
    for release, paths in data["fields"].items():
        data["fields"][release] = [path for path in paths if path not in gone]
    if since is not None:
        data["fields"].setdefault(since, []).extend(gone)
    return ReleaseTable.from_data(data)


@given(st.data())
def test_exactly_the_fields_that_a_release_lacks_are_reported(data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(used()), max_size=4))
    since, target = data.draw(st.none() | RELEASES), data.draw(RELEASES)
    table = moved(gone, since)
    level = None if since and has(since, target) else "error" if since else "warning"
    for subject in subjects():
        found = {(x.level, x.field) for x in field_findings(subject, table, target)}
        lacking = field_paths(subject.config) & gone if level else set()
        assert found == {(level, path) for path in lacking}


@given(st.text(max_size=6) | st.from_regex(r"\d\d\.\d\d", fullmatch=True))
def test_a_release_is_known_or_refused_with_known_ones(target: str) -> None:
    table = release_table()
    if target in table.releases:
        assert table.facts(target).release == target
        return
    with pytest.raises(InputError, match=max(table.releases)):
        table.facts(target)
