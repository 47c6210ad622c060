"""LLMs and lists as directories: made, gone on with, and never half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serendipity.groups.model import GROUP_SPEC, read_coevolution_spec
from serendipity.offline.coevolution.builder import (
    CONFIGURATION,
    CoevolutionError,
    ShortLogsError,
    build_coevolution,
    continue_coevolution,
)
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.groups.builder import build_groups
from serendipity.v1 import records_pb2
from tests.fixtures.small_coevolution import CUT, GROUPS, LLMS, TAXONOMY_HASH
from tests.tools.test_coevolution import rewrite


class Killed(Exception):
    """Stands for the end of the process."""


class Stages:
    """Notes stages, and dies at one."""

    def __init__(self, last: tuple[int, str] | None = None) -> None:
        self.seen: list[tuple[int, str]] = []
        self._last = last

    def __call__(self, cycle: int, name: str) -> None:
        self.seen.append((cycle, name))
        if self.seen[-1] == self._last:
            raise Killed


def _continue(root: Path, out: Path, stages: Stages | None = None) -> records_pb2.CoevolutionSpec:
    return continue_coevolution(
        root / "coevolution", out, root / "logs", root / "groups", 1, root / "today", stage=stages or Stages()
    )


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _assert_alike(one: Path, other: Path) -> None:
    """Expect the same LLMs and lists. Scores of LLMs that were read differ from those just trained by rounding."""
    ours, theirs = read_coevolution_spec(one), read_coevolution_spec(other)
    for name in ("novelty_fingerprint", "relevance_fingerprint", "generation", "taxonomy_hash", "max_prompt_tokens"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("threshold", "score_scale", "score_offset"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-6)
    for first, second in zip(read_lists(one), read_lists(other), strict=True):
        assert (first.key, first.group_id, first.told) == (second.key, second.group_id, second.told)
        alignments = [aligned.alignment for aligned in first.categories]
        assert alignments == pytest.approx([aligned.alignment for aligned in second.categories], abs=1e-6)


def test_a_build_killed_between_cycles_comes_to_the_same(small_coevolution: Path, tmp_path: Path) -> None:
    logs, groups = small_coevolution / "logs", small_coevolution / "groups"
    with pytest.raises(Killed):
        build_coevolution(logs, groups, tmp_path / "out", LLMS, TAXONOMY_HASH, stage=Stages((1, "relevance")))
    assert (tmp_path / "out" / ".checkpoints").is_dir()
    with pytest.raises(Exception, match=r"coevolution\.json: cannot be read"):
        read_coevolution_spec(tmp_path / "out")
    build_coevolution(logs, groups, tmp_path / "out", LLMS, TAXONOMY_HASH)
    _assert_alike(tmp_path / "out", small_coevolution / "coevolution")
    assert not list((tmp_path / "out").glob(".*"))


def test_the_loop_goes_on_with_what_came_in_and_leaves_the_former_result(
    small_coevolution: Path, tmp_path: Path
) -> None:
    before = _files(small_coevolution / "coevolution")
    stages = Stages()
    spec = _continue(small_coevolution, tmp_path / "out", stages)
    assert stages.seen[0] == (2, "records")
    assert _files(small_coevolution / "coevolution") == before

    first = read_coevolution_spec(small_coevolution / "coevolution")
    assert (first.generation, spec.generation) == (1, 2)
    assert first.novelty_fingerprint != spec.novelty_fingerprint
    assert first.relevance_fingerprint != spec.relevance_fingerprint
    assert {made.generation for made in read_lists(tmp_path / "out")} == {2}


def test_llms_of_another_group_model_are_not_gone_on_with(small_coevolution: Path, tmp_path: Path) -> None:
    build_groups(small_coevolution / "logs", tmp_path / "groups", GROUPS.model_copy(update={"seed": 1}))
    assert (tmp_path / "groups" / GROUP_SPEC).read_bytes() != (small_coevolution / "groups" / GROUP_SPEC).read_bytes()
    with pytest.raises(CoevolutionError, match=r"coevolution\.json: group_model_id: found '\w+', expected '\w+' of"):
        continue_coevolution(
            small_coevolution / "coevolution", tmp_path / "out", small_coevolution / "logs", tmp_path / "groups", 1
        )
    assert not (tmp_path / "out").exists()


def test_events_since_the_build_alone_are_refused(small_coevolution: Path, tmp_path: Path) -> None:
    root = shutil.copytree(small_coevolution, tmp_path / "build")
    rewrite(root / "today" / "clicks.parquet", f"WHERE time >= {CUT}")
    with pytest.raises(CoevolutionError, match=rf"today: found no click from before {CUT}, .* expected all events"):
        _continue(root, tmp_path / "out")


def test_a_configuration_that_cannot_be_read_is_named(small_coevolution: Path, tmp_path: Path) -> None:
    root = shutil.copytree(small_coevolution, tmp_path / "build")
    (root / "coevolution" / "configuration.json").write_text('{"base": 7}')
    with pytest.raises(CoevolutionError, match=r"configuration\.json: cannot be read .*\nbase\n"):
        _continue(root, tmp_path / "out")


def test_a_configuration_with_fields_of_an_earlier_version_is_read(small_coevolution: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(small_coevolution, earlier)
    path = earlier / "coevolution" / CONFIGURATION
    recorded = json.loads(path.read_text())
    recorded["max_batch"], recorded["pco"]["dpo"]["beta"] = 64, 0.1
    path.write_text(json.dumps(recorded))
    stages = Stages((2, "records"))
    with pytest.raises(Killed):
        _continue(earlier, tmp_path / "out", stages)
    assert stages.seen == [(2, "records")]


def test_logs_too_short_to_judge_by_are_refused(small_coevolution: Path, tmp_path: Path) -> None:
    few = LLMS.model_copy(update={"examples": LLMS.examples.model_copy(update={"min_clicks": 10_000})})
    with pytest.raises(ShortLogsError, match="found no click of a validation user outside the latest categories"):
        build_coevolution(small_coevolution / "logs", small_coevolution / "groups", tmp_path, few, TAXONOMY_HASH)
