"""Packages of extras, by requirements as the metadata of a distribution has them."""

from __future__ import annotations

import shlex

import pytest

from tritier.doctor.packages import check_packages, installed_version, own_requirements
from tritier.documents import MachineCheck

REQUIRES = [
    "numpy>=1.26",
    "tritonclient[grpc]<3,>=2.60",
    'tomli; python_version < "3.0"',
    'nvidia-pytriton==0.7.0; extra == "embedded"',
    'numpy<2,>=1.26; extra == "embedded"',
    'locust>=2.40; extra == "loadtest"',
    "locust>=2.40; extra == 'dev'",
    'tritier[loadtest]; extra == "dev"',
    'oddity>=1; extra == "brand-new"',
]
ALL = {"numpy": "1.26.4", "tritonclient": "2.73.0", "nvidia-pytriton": "0.7.0", "locust": "2.47.0",
       "oddity": "1.0rc1"}  # fmt: skip


def checks(versions: dict[str, str]) -> dict[str, MachineCheck]:
    """Name -> check where these versions are installed."""
    return {item.name: item for item in check_packages(REQUIRES, versions.get, "python")}


def test_extras_are_those_of_the_metadata_the_core_first() -> None:
    found = checks(ALL)
    names = ["core", "embedded", "loadtest", "dev", "brand-new"]
    assert list(found) == [f"packages: {name}" for name in names]
    assert {name for name, item in found.items() if item.demo} == {
        "packages: core", "packages: embedded",
    }  # fmt: skip
    core = found["packages: core"]
    assert (core.status, core.found, core.fix) == ("ok", "all 2 are installed", None)


def test_a_release_candidate_below_the_limit_does_not_fit() -> None:
    check = checks(ALL)["packages: brand-new"]
    assert (check.status, check.found) == ("missing", "oddity 1.0rc1 does not fit >=1")


@pytest.mark.parametrize(
    ("changes", "name", "found", "wanted"),
    [
        ({"numpy": "2.1.0"}, "embedded", "numpy 2.1.0 does not fit <2,>=1.26",
         ["numpy<2,>=1.26"]),
        ({"tritonclient": None}, "core", "tritonclient is not installed",
         ["tritonclient[grpc]<3,>=2.60"]),
        ({"nvidia-pytriton": None, "numpy": "1.0"}, "embedded",
         "nvidia-pytriton is not installed; numpy 1.0 does not fit <2,>=1.26",
         ["nvidia-pytriton==0.7.0", "numpy<2,>=1.26"]),
    ],
)  # fmt: skip
def test_what_is_missing_or_does_not_fit_is_told_with_its_fix(
    changes: dict[str, str | None], name: str, found: str, wanted: list[str]
) -> None:
    versions = {key: value for key, value in {**ALL, **changes}.items() if value is not None}
    check = checks(versions)[f"packages: {name}"]
    assert (check.status, check.found) == ("missing", found)
    assert shlex.split(check.fix or "") == ["python", "-m", "pip", "install", *wanted]


def test_without_metadata_nothing_is_claimed() -> None:
    (check,) = check_packages(None, ALL.get, "python")
    assert check.status == "warning"
    assert not check.demo


def test_own_metadata_is_read_where_it_is_installed() -> None:
    requirements = own_requirements()
    assert requirements is None or any(text.startswith("pydantic") for text in requirements)
    assert installed_version("pytest") is not None
    assert installed_version("no-such-distribution-here") is None
