"""The serving log: everything appended can be read back, torn tails are skipped, files end and go."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from pathlib import Path

import duckdb
import numpy as np
import pytest
from google.protobuf import proto
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.channel.state.serving_log import Rotation, ServingLog
from serendipity.channel.state.serving_log_files import compact, remove_old
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


async def test_closed_files_become_parquet_of_the_same_records_and_the_open_one_stays(tmp_path: Path) -> None:
    of_a_worker_that_is_no_more = ServingLog(tmp_path, worker=7, rotation=Rotation(max_file_bytes=1_000))
    for i in range(200):
        of_a_worker_that_is_no_more.append(answer(f"user-{i:03}", count=100))
    of_a_worker_that_is_no_more.close()
    raw = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    log = ServingLog(tmp_path)
    log.append(answer("open"))
    assert log._writer.flush(60)
    await compact(tmp_path, most_bytes=1 << 30)
    assert users(tmp_path) == ["open"]
    assert {path.stem for path in tmp_path.glob("*.parquet")} == set(raw)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    rows = duckdb.sql(
        f"""SELECT user_id, epoch_us(time), novelty_policy, response.item_ids[100], response.scores[1],
        response.sources[2], response.reasons[1].text, len(response.rank_features.values), response.versions
        FROM '{tmp_path}/*.parquet' ORDER BY user_id"""
    ).fetchall()
    assert [row[0] for row in rows] == [f"user-{i:03}" for i in range(200)]
    assert rows[0][1:4] == (1_700_000_000_500_000, "NOVELTY_POLICY_STRICT", "item-99")
    assert rows[0][4:] == (pytest.approx(0.9), "SOURCE_COLLABORATIVE", "like yours", 100, None)
    log.close()


async def test_what_is_closed_is_smaller_by_far_once_it_is_compacted(tmp_path: Path) -> None:
    log = ServingLog(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(300):
        record = answer(f"user-{i}", count=100)
        record.response.scores[:] = rng.random(100).tolist()
        log.append(record)
    log.close()
    (path,) = tmp_path.iterdir()
    before = path.stat().st_size
    await compact(tmp_path, most_bytes=1 << 30)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < before / 3


async def test_a_compaction_that_was_cut_short_is_done_again_and_a_torn_record_is_left_out(tmp_path: Path) -> None:
    log = ServingLog(tmp_path)
    for i in range(3):
        log.append(answer(f"user-{i}"))
    log.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    path.with_suffix(".parquet.part").write_bytes(b"half")
    await compact(tmp_path, most_bytes=1 << 30)
    (compacted,) = tmp_path.iterdir()
    assert duckdb.sql(f"SELECT user_id FROM '{compacted}'").fetchall() == [("user-0",), ("user-1",)]


async def test_the_oldest_files_of_all_workers_go_beyond_the_size(tmp_path: Path) -> None:
    for worker, moment in ((3, 1_000.0), (1, 2_000.0), (0, 3_000.0)):
        log = ServingLog(tmp_path, worker=worker)
        log.append(answer(f"of-{worker}"))
        log.close()
        await compact(tmp_path, most_bytes=1 << 30)
        (path,) = tmp_path.glob(f"*-w{worker}-*")
        os.utime(path, (moment, moment))
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    await compact(tmp_path, most_bytes=sum(sizes) - 1)
    assert sorted(path.name.split("-")[1] for path in tmp_path.iterdir()) == ["w0", "w1"]
    # And by age, whatever their workers are: what a clock that was ahead has dated later is brought down.
    (later,) = tmp_path.glob("*-w0-*")
    assert remove_old(tmp_path, before=2_500.0, now=2_800.0) == 1
    assert (list(tmp_path.iterdir()), later.stat().st_mtime) == ([later], 2_800.0)


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
    directory.write_text("in its place")
    log = ServingLog(directory, on_drop=dropped.append)
    log.append(answer("lost"))
    log.close()
    assert dropped == [1]


def test_a_disk_that_refused_is_left_alone_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory, clock = tmp_path / "log", Clock()
    dropped: queue.Queue[int] = queue.Queue()
    directory.write_text("in its place")
    log = ServingLog(directory, on_drop=dropped.put, clock=clock)
    for _ in range(3):
        log.append(answer("lost"))
        assert dropped.get(timeout=60) == 1
    assert len([record for record in caplog.records if "lost" in record.message]) == 1
    directory.unlink()
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
