"""The benchmark of Novelty and Relevance LLM: real language models of random weights, the real tritonserver."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from benchmarks.coevolution import Throughput, draw_keys, main, profiles_of
from serendipity import layout
from serendipity.v1 import records_pb2
from tests.fixtures.tiny_coevolution import CATEGORIES, make_tiny_coevolution


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build directory with what the benchmark looks at: a manifest, groups and both LLMs."""
    spec = make_tiny_coevolution(tmp_path / "coevolution", max_batch=4)
    snapshot = tmp_path / "snapshots" / "v1"
    (snapshot / layout.GROUPS).mkdir(parents=True)
    with lmdb.open(str(snapshot / layout.GROUPS)) as environment, environment.begin(write=True) as transaction:
        for group, profile in enumerate(("everybody", "people who cook")):
            record = records_pb2.GroupRecord(group_id=group, profile=profile)
            transaction.put(layout.group_key(group), record.SerializeToString())
    manifest = records_pb2.Manifest(layout_version=layout.LAYOUT_VERSION, version="v1", categories=CATEGORIES)
    manifest.coevolution.CopyFrom(spec)
    layout.write_manifest(snapshot, manifest)
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to("v1")
    return tmp_path


def test_a_list_costs_one_proposal_and_a_score_of_each_candidate() -> None:
    assert Throughput(8, 10.0, 100.0, 10).lists_per_second == pytest.approx(5.0)


def test_keys_are_of_known_groups_and_distinct_categories(build: Path) -> None:
    profiles = profiles_of(build / "snapshots" / "v1")
    assert profiles == ["everybody", "people who cook"]
    keys = draw_keys(profiles, CATEGORIES, 200, seed=0)
    assert keys == draw_keys(profiles, CATEGORIES, 200, seed=0)
    assert {len(key.categories) for key in keys} == {0, 1, 2, 3}
    assert all(len(set(key.categories)) == len(key.categories) for key in keys)
    assert {key.profile for key in keys} == set(profiles)


@pytest.mark.integration
def test_one_command_measures_and_reports(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    arguments = ["--build", str(build), "--launch", "--seconds", "0.1", "--batches", "4", "1", "--out", str(report)]
    assert main([*arguments, "--keys", "8"]) == 0
    text = report.read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "/s" not in line]
    assert [row[0] for row in rows] == ["1", "4"]
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row)


def test_a_snapshot_without_lists_is_named(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = layout.read_manifest(build / "snapshots" / "v1")
    manifest.ClearField("coevolution")
    layout.write_manifest(build / "snapshots" / "v1", manifest)
    assert main(["--build", str(build), "--launch"]) == 1
    assert "coevolution: found none, expected the two LLMs" in capsys.readouterr().err
