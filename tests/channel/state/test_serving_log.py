"""The serving log: everything appended can be read back, torn tails are skipped, files end and go."""

from __future__ import annotations

import queue
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import proto
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.channel.state.serving_log import Rotation, ServingLog
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.serving_log import read_serving_log


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def answer(user: str, count: int = 2) -> records_pb2.ServingRecord:
    record = records_pb2.ServingRecord(
        user_id=user,
        experiment_tag="b",
        novelty_policy=channel_pb2.NOVELTY_POLICY_STRICT,
        response=channel_pb2.RecallResponse(
            recall_id=f"recall-of-{user}",
            item_ids=[f"item-{i}" for i in range(count)],
            scores=np.linspace(0.9, 0.1, count).tolist(),
            sources=[channel_pb2.SOURCE_COLLABORATIVE] * count,
            unexpectedness=[1.0] * count,
            category_indexes=[0] * count,
            categories=["tea"],
            reasons=[channel_pb2.Reason(source=channel_pb2.SOURCE_COLLABORATIVE, text="like yours", weight=1.0)],
            reason_indexes=[0] * count,
            rank_features=channel_pb2.FeatureMatrix(names=["rank"], num_rows=count, values=[0.0] * count),
        ),
    )
    record.time.FromMilliseconds(1_700_000_000_500)
    return record


def users(directory: Path) -> list[str]:
    return [record.user_id for record in read_serving_log(directory)]


def test_an_answer_is_kept_as_it_was(tmp_path: Path) -> None:
    log = ServingLog(tmp_path)
    log.append(answer("anna"))
    log.close()
    (record,) = read_serving_log(tmp_path)
    assert record == answer("anna")
    assert record.user_id == "anna"
    assert record.response.reasons[0].text == "like yours"


def test_files_end_at_their_size_and_are_read_in_order(tmp_path: Path) -> None:
    log = ServingLog(tmp_path, rotation=Rotation(max_file_bytes=1_000), clock=Clock())
    for i in range(50):
        log.append(answer(f"user-{i}"))
    log.close()
    assert len(list(tmp_path.iterdir())) > 5
    assert users(tmp_path) == [f"user-{i}" for i in range(50)]


def test_old_files_go_and_other_workers_files_stay(tmp_path: Path) -> None:
    log = ServingLog(tmp_path, worker=1)
    log.append(answer("of another worker"))
    log.close()
    log = ServingLog(tmp_path, worker=0, rotation=Rotation(max_file_bytes=1, max_total_bytes=1_500), clock=Clock())
    for i in range(20):
        log.append(answer(f"user-{i}"))
    log.close()
    kept = users(tmp_path)
    assert "of another worker" in kept
    assert "user-19" in kept
    assert "user-0" not in kept
    assert sum(path.stat().st_size for path in tmp_path.glob("*-w0-*")) <= 3_000


def test_a_files_age_ends_it(tmp_path: Path) -> None:
    clock = Clock()
    log = ServingLog(tmp_path, rotation=Rotation(max_file_seconds=0.0), clock=clock)
    log.append(answer("first"))
    log.close()
    clock.now += 1
    log = ServingLog(tmp_path, rotation=Rotation(max_file_seconds=0.0), clock=clock)
    log.append(answer("second"))
    log.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_answers_never_wait_for_the_log(tmp_path: Path) -> None:
    writing, go_on = threading.Event(), threading.Event()

    class SlowClock(Clock):
        def __call__(self) -> float:
            writing.set()
            go_on.wait(10)
            return self.now

    dropped: list[int] = []
    log = ServingLog(tmp_path, capacity=3, on_drop=dropped.append, clock=SlowClock())
    assert log.append(answer("held"))
    assert writing.wait(10)
    kept = [log.append(answer(f"user-{i}")) for i in range(5)]
    assert kept == [True, True, True, False, False]
    go_on.set()
    log.close()
    assert sum(dropped) == 2
    assert users(tmp_path) == ["held", "user-0", "user-1", "user-2"]
    assert not log.append(answer("after close"))


def test_a_disk_that_refuses_costs_records_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    dropped: list[int] = []
    log = ServingLog(directory, on_drop=dropped.append)
    directory.rmdir()
    log.append(answer("lost"))
    log.close()
    assert dropped == [1]


def test_a_disk_that_refused_is_left_alone_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory, clock = tmp_path / "log", Clock()
    dropped: queue.Queue[int] = queue.Queue()
    log = ServingLog(directory, on_drop=dropped.put, clock=clock)
    directory.rmdir()
    for _ in range(3):
        log.append(answer("lost"))
        assert dropped.get(timeout=60) == 1
    assert len([record for record in caplog.records if "lost" in record.message]) == 1
    directory.mkdir()
    clock.now += 11.0
    log.append(answer("kept"))
    log.close()
    assert users(directory) == ["kept"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("log")
    log = ServingLog(directory)
    for i in range(4):
        log.append(answer(f"user-{i}"))
    log.close()
    (path,) = directory.iterdir()
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_torn_anywhere_gives_its_whole_records(written: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(written)))
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "1.log").write_bytes(written[:cut])
        (Path(directory) / "2.log").write_bytes(written)
        found = users(Path(directory))
    whole = found[:-4]
    assert whole == [f"user-{i}" for i in range(len(whole))]
    assert found[-4:] == [f"user-{i}" for i in range(4)]
    with tempfile.TemporaryFile() as rest:
        for record in range(len(whole) + 1):
            proto.serialize_length_prefixed(answer(f"user-{record}"), rest)  # type: ignore[arg-type]
        assert len(whole) == 4 or rest.tell() > cut


def test_records_are_plain_length_delimited_messages(written: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(written)
        file.seek(0)
        record = proto.parse_length_prefixed(records_pb2.ServingRecord, file)  # type: ignore[arg-type]
    assert record.user_id == "user-0"
