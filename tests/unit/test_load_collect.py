"""What processes of a load test tell each other, without Locust and without servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from tests.helpers.loads import job, questions, settings
from tritier.bench import locust_collect
from tritier.bench.locust_collect import MESSAGE_SAMPLES, Collector
from tritier.bench.locust_job import PROGRESS_NAME, RESULT_NAME, SAMPLES_NAME, STOP_NAME, write_job
from tritier.bench.locust_samples import RIGHT, WRONG, Tag
from tritier.documents.load import LoadResult


class Wire:
    """What a worker's runner does: messages as Locust sends them, to a master or to nobody."""

    def __init__(self, master: Collector | None, name: str = "w0") -> None:
        self.master, self.name, self.broken = master, name, False

    def send_message(self, kind: str, data: Any) -> None:
        if self.broken:
            raise OSError("no way")
        assert kind == MESSAGE_SAMPLES
        carried = msgpack.loads(msgpack.dumps(data), raw=False, strict_map_key=False)
        if self.master is not None:
            self.master.receive(self.name, carried)


def _collector(tmp_path: Path, name: str, **changed: Any) -> Collector:
    write_job(tmp_path / name, job(**changed), questions("aaaaaaaa"))
    made = Collector(tmp_path / name)
    made.start()
    return made


def test_all_that_workers_count_is_in_the_result(tmp_path: Path) -> None:
    master = _collector(tmp_path, "master")
    master.role = "master"
    for name, count in (("w0", 3), ("w1", 4)):
        worker = _collector(tmp_path, name)
        worker.role = "worker"
        for k in range(count):
            worker.add(2.0, 10.0 + k, RIGHT, Tag(plan="aaaaaaaa"))
            worker.send(Wire(master, name))
        worker.send(Wire(master, name))  # nothing new
    master.add(1.0, 1.0, RIGHT, Tag())
    found = master.result()
    assert (found.requests, found.settings.workers) == (8, 2)
    assert found.answered_by == {"aaaaaaaa": 7, "unknown": 1}


def test_what_could_not_be_sent_is_sent_later(tmp_path: Path) -> None:
    master, worker = _collector(tmp_path, "master"), _collector(tmp_path, "worker")
    wire = Wire(master)
    wire.broken = True
    worker.add(1.0, 1.0, RIGHT, Tag("first"))
    worker.send(wire)
    worker.add(1.0, 1.0, RIGHT, Tag("second"))
    wire.broken = False
    worker.send(wire)
    assert len(master.samples) == 2
    assert [tag.request_class for tag in master.samples.tags] == ["first", "second"]


def test_a_worker_that_asks_something_else_is_not_counted(tmp_path: Path) -> None:
    master = _collector(tmp_path, "master")
    other = _collector(tmp_path, "other", settings=settings(inputs_sha256="ff"))
    other.add(1.0, 1.0, RIGHT, Tag())
    other.send(Wire(master, "w7"))
    found = master.result()
    assert found.requests == 0
    assert found.warnings == (
        "worker w7: asks other inputs, classes or plans than the master, or in another way; it is "
        "not counted",
    )


@pytest.mark.parametrize(
    "changed", [{"timeout_ms": 5}, {"pause_ms": 1.0}, {"seed": 1}, {"batch": 2}]
)
def test_a_worker_that_asks_in_another_way_is_not_counted(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    master = _collector(tmp_path, "master")
    other = _collector(tmp_path, "other", settings=settings(**changed))
    other.add(1.0, 1.0, RIGHT, Tag())
    other.send(Wire(master, "w7"))
    found = master.result()
    assert found.requests == 0
    assert "it is not counted" in found.warnings[0]


def test_requests_of_a_worker_that_came_late_are_in_the_right_level(tmp_path: Path) -> None:
    master, same, late = (_collector(tmp_path, name) for name in ("master", "same", "late"))
    master.role = "master"
    master._started -= 13.5  # in the second level of 10 s each
    same._started -= 13.4
    late._started -= 1.5
    same.add(3.0, 1.0, RIGHT, Tag())
    same.send(Wire(master, "same"))
    late.add(1.0, 1.0, RIGHT, Tag())  # a second after it has begun
    late.send(Wire(master, "late"))
    assert list(master.samples.sent_s) == pytest.approx([3.0, 13.0], abs=0.4)
    assert master.samples.sent_s[0] == 3.0, "what a message takes is no shift"
    assert [point.requests for point in master.result().points] == [1, 1]
    # A message that was slow does not move what comes after it.
    late._started += 4
    late.add(2.0, 1.0, RIGHT, Tag())
    late.send(Wire(master, "late"))
    assert master.samples.sent_s[2] == pytest.approx(14.0, abs=0.4)


@pytest.mark.parametrize("data", [None, {}, {"fingerprint": ""}, []])
def test_a_message_from_somebody_else_does_no_harm(tmp_path: Path, data: Any) -> None:
    master = _collector(tmp_path, "master")
    master.receive("w0", data)
    assert master.result().warnings


def test_the_master_waits_for_the_last_samples(tmp_path: Path) -> None:
    master, worker = _collector(tmp_path, "master"), _collector(tmp_path, "worker")
    master.role = "master"
    worker.add(1.0, 1.0, RIGHT, Tag())

    class Runner:
        worker_count = 1

        def send_message(self, kind: str, data: Any) -> None:
            del kind, data
            worker.send(Wire(master), flushed=True)

    master.flush(Runner())
    assert len(master.samples) == 1


def test_workers_that_hand_nothing_over_at_the_end_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locust_collect, "_FLUSH_S", 0.1)
    master, here, gone = (_collector(tmp_path, name) for name in ("master", "here", "gone"))
    master.role = "master"
    for worker, name in ((here, "w0"), (gone, "w1")):
        worker.add(1.0, 1.0, RIGHT, Tag())
        worker.send(Wire(master, name))

    class Runner:
        def __init__(self, count: int) -> None:
            self.worker_count = count

        def send_message(self, *_: Any) -> None:
            here.send(Wire(master, "w0"), flushed=True)

    master.flush(Runner(1))  # Locust knows that w1 is gone
    assert master.result().warnings == (
        "worker w1: did not hand over its last requests; it may have ended, or lost the master",
    )
    master._warnings.clear()
    master.flush(Runner(3))
    assert "1 workers never handed over any requests" in master.result().warnings
    assert master.result().requests == 2


def test_a_second_test_starts_from_nothing(tmp_path: Path) -> None:
    only = _collector(tmp_path, "only")
    only.add(1.0, 1.0, WRONG, Tag(), "why")
    only.busy()
    only.end()
    assert only.result().warnings
    only.start()
    found = only.result()
    assert (found.requests, found.messages, found.warnings) == (0, (), ())


def test_a_test_that_somebody_leads_has_one_level(tmp_path: Path) -> None:
    only = _collector(tmp_path, "only")
    only.led = True
    for count in (1, 5, 2):
        only.saw_users(count)
    only.add(0.0, 1.0, RIGHT, Tag())
    only.end()
    found = only.result()
    assert (found.shape, found.users, found.interrupted) == (None, (5,), False)


def test_result_samples_and_progress_are_files(tmp_path: Path) -> None:
    only = _collector(tmp_path, "only")
    only.add(0.0, 1.0, RIGHT, Tag())
    assert not only.stop_wanted
    (only.folder / STOP_NAME).touch()
    assert only.stop_wanted
    only.progress("2 users")
    only.end()
    only.write()
    assert LoadResult.load(only.folder / RESULT_NAME).interrupted
    assert len((only.folder / SAMPLES_NAME).read_text().splitlines()) == 2
    assert "2 users (" in (only.folder / PROGRESS_NAME).read_text()
