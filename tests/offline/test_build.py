"""A whole build of a small host, through the real builders and the real pipeline."""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest
from rich.console import Console
from rich.progress import Progress

from serendipity import layout
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.state.erasure import ErasureList
from serendipity.groups.model import read_coevolution_spec, read_group_spec
from serendipity.interests.model import read_spec
from serendipity.offline.build import BuildResult, _Build, build, build_step, wanted
from serendipity.offline.build_config import BuildConfig, BuildConfigError, load_build_config, write_build_config
from serendipity.offline.configuration import keys
from serendipity.offline.graph.builder import GraphSummary
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.merge.builder import read_merge
from serendipity.offline.snapshot.gate import GateRefusedError, read_canary
from serendipity.offline.steps import STAMP, Numbers, StepError
from serendipity.offline.towers.builder import FIT
from serendipity.offline.towers.export import ONNX
from serendipity.offline.workers import StepContext
from serendipity.tools import coevolution, pipeline
from serendipity.tools.quality_gate import quality_gate
from serendipity.tools.serving.deployment import place_pinned
from serendipity.tools.serving.trainings import read_tower
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.own_model import item_vectors, write_own_model
from tests.fixtures.small_host import NUM_DAYS, START, write_small_host

REPOSITORY = Path(__file__).parents[2]
NOW = START + 200 * 86_400
_GROUP = channel_pb2.SourceQuota(source="SOURCE_GROUP", min_count=5, max_count=10)

SMALL = """
interests_per_user = 8
[logs]
novelty_level = 1
[interest_gpt]
judged_users = 8
[interest_gpt.dataset]
num_examples = 60
max_cuts = 2
[interest_gpt.sft]
epochs = 1
[towers.rows]
num_cuts = 1
max_interests = 8
[towers.trainer]
max_epochs = 1
[towers.loss]
num_negatives = 128
[groups]
num_groups = 4
[groups.sequence]
min_clicks = 3
[groups.interest]
dim = 8
window = 4
epochs = 1
validation_users = 5
[groups.quantizer]
codebook_size = 4
num_quantizers = 2
latent_dim = 4
hidden_dim = 8
epochs = 2
[coevolution]
num_candidates = 5
[coevolution.tiny]
hidden_size = 16
intermediate_size = 32
num_layers = 1
num_heads = 2
merges = 50
max_positions = 256
[coevolution.examples]
max_novelty = 96
max_relevance = 48
unclicked = 4
validation_share = 0.3
[coevolution.pco]
cycles = 1
max_records = 16
common_categories = 5
[graph.held]
num_clusters = [4, 8]
[graph.model]
dim = 8
[merge]
count = 60
min_positives = 20
leaf_candidates = 20
[canary]
num_users = 60
count = 20
[gate]
# Few positives make a model here: learned anew, its probabilities may lie elsewhere.
max_score_factor = 30.0
"""


@dataclass(frozen=True)
class Host:
    """A host's folder, a configuration file and a place to build in."""

    folder: Path
    toml: Path
    out: Path

    def config(self, **given: object) -> BuildConfig:
        return load_build_config(self.toml, {"dataset": str(self.folder), **given})

    def build(self, erasures: Path | None = None, workers: int = 1, **given: object) -> BuildResult:
        config = self.config(**given)
        return build(
            config,
            self.out,
            open_recall=pipeline.open_pipeline,
            recall_code=["serendipity.tools.pipeline"],
            publish=publisher(config),
            console=Console(file=io.StringIO()),
            erasures=erasures,
            clock=_now,
            workers=workers,
        )


def _now() -> float:
    return NOW


def publisher(config: BuildConfig) -> Callable[[Path], None]:
    def publish(snapshot: Path) -> None:
        Publications(snapshot.parent, checks=[quality_gate(config.gate)], clock=_now).publish(snapshot.name)

    return publish


def _ran(result: BuildResult) -> set[str]:
    return {outcome.step for outcome in result.outcomes if outcome.ran}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    root = tmp_path_factory.mktemp("build")
    write_small_host(root / "host", num_users=90, num_items=240)
    (root / "build.toml").write_text(SMALL)
    return Host(root / "host", root / "build.toml", root / "out")


@pytest.fixture(scope="module")
def built(host: Host) -> BuildResult:
    """A build that was killed twice before it was let finish, by two workers."""
    for step in ("logs", "towers"):
        _kill_in(host, step)
    return host.build(workers=2, hold_out=0.1)


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from serendipity.offline import steps
from tests.offline.test_build import Host

host, step = Host(*map(Path, sys.argv[2:5])), sys.argv[5]
stamped = steps._Stamp.write
def write(stamp, directory):
    if directory.name.startswith(f".{step}."):
        os.kill(os.getpid(), signal.SIGKILL)
    stamped(stamp, directory)
steps._Stamp.write = write
host.build(hold_out=0.1)
"""


def _kill_in(host: Host, step: str) -> None:
    """Build in another process that kills itself when the step's work is there and not yet known to be whole."""
    arguments = [sys.executable, "-c", _KILLED, REPOSITORY, host.folder, host.toml, host.out, step]
    process = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (host.out / step).exists()


def test_a_build_publishes_a_whole_merged_measured_snapshot(host: Host, built: BuildResult) -> None:
    assert built.published
    assert wanted(host.out / "snapshots") == built.snapshot.name
    manifest = layout.verify_files(built.snapshot)
    assert manifest.version == built.snapshot.name
    assert manifest.counts.users == 90
    assert (manifest.merge, (built.snapshot / layout.MERGE_MODEL).read_bytes()) == read_merge(host.out / "merge")
    assert manifest.merge.id
    assert manifest.dataset == "host"
    assert manifest.interest_gpt == read_spec(host.out / "interest_gpt")
    assert manifest.interest_gpt.taxonomy_hash == manifest.taxonomy_hash
    summary = InterestsSummary.read(host.out / "interests")
    assert manifest.vocabulary_id == summary.vocabulary_id
    assert manifest.grounding_threshold == summary.grounding_threshold
    assert manifest.tower.fingerprint == layout.sha256(host.out / "towers" / "user_tower.pt2")[:16]
    canary = read_canary(built.snapshot)
    assert canary == built.canary
    assert canary is not None
    assert (canary.violations, canary.degraded) == (0, 0)
    assert canary.novel_recall is not None


def test_a_build_is_told_as_a_page(host: Host, built: BuildResult) -> None:
    page = (host.out / "report.html").read_text()
    assert f"<h1>{built.snapshot.name} of " in page
    assert all(f"<td>{outcome.step}<td" in page for outcome in built.outcomes if outcome.step != "publish")
    assert "<td>collaborative" in page or "<td>interest" in page
    assert "<polyline" in page
    parser = HTMLParser()
    parser.feed(page)
    parser.close()


def test_the_snapshot_answers_with_the_group_source_and_says_why(host: Host, built: BuildResult) -> None:
    manifest = layout.read_manifest(built.snapshot)
    assert manifest.groups == read_group_spec(host.out / "groups")
    assert manifest.coevolution == read_coevolution_spec(host.out / "coevolution")
    assert manifest.coevolution.taxonomy_hash == manifest.taxonomy_hash
    # One cycle as of the cut, and one on what was clicked since.
    assert read_coevolution_spec(host.out / "validation" / "coevolution").generation == 1
    assert manifest.coevolution.generation == 2
    keys: Counter[int] = Counter()
    reasons = []
    with pipeline.open_pipeline(built.snapshot, host.out / "towers" / ONNX) as recall:
        for user_id in [*(f"u{n:04}" for n in range(0, 90, 3)), "nobody has seen"]:
            response = recall(
                channel_pb2.RecallRequest(user_id=user_id, count=10, explain=True, source_quotas=[_GROUP])
            )
            (status,) = (row for row in response.source_statuses if row.source == channel_pb2.SOURCE_GROUP)
            keys[status.novel_category_key] += 1
            reasons += [
                response.reasons[reason]
                for source, reason in zip(response.sources, response.reason_indexes, strict=True)
                if source == channel_pb2.SOURCE_GROUP
            ]
    assert keys[channel_pb2.NOVEL_CATEGORY_KEY_M3] > 0
    assert keys[channel_pb2.NOVEL_CATEGORY_KEY_DEFAULT] > 0
    assert reasons
    assert all(reason.latent_interest in reason.text for reason in reasons)


def test_the_snapshot_answers_from_its_graph_a_session_of_nobody_known(host: Host, built: BuildResult) -> None:
    manifest = layout.read_manifest(built.snapshot)
    chosen = GraphSummary.read(host.out / "validation" / "graph").choice
    assert GraphSummary.read(host.out / "graph").choice == chosen
    assert len(manifest.graph.interests) == chosen.num_clusters
    clicks = [channel_pb2.Event(item_id=f"i{n:04}", type=channel_pb2.EVENT_TYPE_CLICK) for n in (0, 12, 24)]
    # A tower of another training does not answer, as when Triton is dead.
    with pipeline.open_pipeline(built.snapshot, host.out / "towers" / FIT / ONNX) as recall:
        response = recall(channel_pb2.RecallRequest(user_id="nobody", count=20, explain=True, recent_events=clicks))
    assert response.degraded
    (status,) = (row for row in response.source_statuses if row.source == channel_pb2.SOURCE_GRAPH)
    assert (status.state, status.returned > 0) == (channel_pb2.SOURCE_STATE_OK, True)
    texts = {reason.text for reason in response.reasons if reason.source == channel_pb2.SOURCE_GRAPH}
    assert texts <= {f"Goes with Thing {n} of food 0, which you chose." for n in (0, 12, 24)}
    assert texts


def test_a_killed_build_is_continued_not_repeated(built: BuildResult) -> None:
    assert {outcome.step for outcome in built.outcomes if not outcome.ran} == {
        "held_out/logs", "logs", "interests",
    }  # fmt: skip


def test_what_is_made_in_one_process_is_the_same(host: Host, built: BuildResult, tmp_path: Path) -> None:
    alone = replace(host, out=tmp_path / "out").build(hold_out=0.1)
    assert alone.snapshot.name == built.snapshot.name
    assert _contents(tmp_path / "out") == _contents(host.out)
    assert alone.canary == built.canary


def _contents(out: Path) -> dict[str, str]:
    """The hash of what each step made."""
    return {str(stamp.parent.relative_to(out)): json.loads(stamp.read_text())["content"] for stamp in out.rglob(STAMP)}


def run_logs(toml: Path, host: Path, out: Path, **given: object) -> Numbers:
    """Run the step `logs` of a build, and nothing else."""
    config = load_build_config(toml, {"dataset": str(host), **given})
    plan = _Build(config, out, pipeline.open_pipeline, ["serendipity.tools.pipeline"], Erasures(), _now).plan()
    (step,) = (step for step in plan if step.name == "logs")
    return step.run(StepContext(out, None, Progress(disable=True)))


def test_what_the_logs_warn_of_is_shown_in_the_builds_line(host: Host, tmp_path: Path) -> None:
    shutil.copytree(host.folder, tmp_path / "host")
    with duckdb.connect() as connection:
        items = f"SELECT * FROM read_parquet('{host.folder}/items.parquet')"
        shouted = "list_transform(path, lambda level: upper(level)) AS path"
        odd = f"SELECT * REPLACE ('odd' AS item_id, {shouted}) FROM ({items}) LIMIT 1"
        connection.execute(f"COPY ({items} UNION ALL ({odd})) TO '{tmp_path}/host/items.parquet' (FORMAT parquet)")
    assert "warning:" not in run_logs(host.toml, host.folder, tmp_path / "quiet")
    warned = run_logs(host.toml, tmp_path / "host", tmp_path / "out")["warning:"]
    assert str(warned).startswith("path: 2 names of categories at level 1 differ only in case")


def test_a_step_can_be_brought_up_to_date_alone(host: Host, built: BuildResult, tmp_path: Path) -> None:
    alone = replace(host, out=tmp_path / "out")
    arguments = {"open_recall": pipeline.open_pipeline, "recall_code": ["serendipity.tools.pipeline"], "clock": _now}
    given = alone.config(hold_out=0.1), alone.out
    outcomes = build_step("validation/logs", *given, console=Console(file=io.StringIO()), **arguments)
    assert [outcome.step for outcome in outcomes] == ["held_out/logs", "logs", "validation/logs"]
    assert sorted(path.name for path in alone.out.iterdir() if path.is_dir()) == ["held_out", "logs", "validation"]
    with pytest.raises(StepError, match=r"step tower: found none of that name, expected one of .*, towers,"):
        build_step("tower", *given, console=Console(file=io.StringIO()), **arguments)


def test_logs_that_nothing_can_come_of_end_a_build_at_its_first_step(host: Host, tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"novelty at level 1 .* of the 1000 candidates.*; no other level"):
        run_logs(host.toml, host.folder, tmp_path / "out", canary={"count": 1000})


def test_every_step_is_made_of_what_steps_before_it_make(host: Host, built: BuildResult) -> None:
    config = host.config(hold_out=0.1)
    plan = _Build(config, host.out, pipeline.open_pipeline, ["serendipity.tools.pipeline"], Erasures(), _now).plan()
    made: list[Path] = []
    for step in plan:
        of_others = [path for path in step.inputs if host.out in path.parents]
        assert all(any(path.is_relative_to(place) for place in made) for path in of_others)
        made.append(host.out / step.name)


def test_nothing_after_the_cut_reaches_what_the_merge_is_learned_with(host: Host, built: BuildResult) -> None:
    (path,) = (host.out / "validation" / "snapshot").glob("*/manifest.json")
    validation = layout.read_manifest(path.parent)
    whole = layout.read_manifest(built.snapshot)
    held_out = LogsSummary.read(host.out / "held_out" / "logs").events_until
    assert validation.events_until.seconds < whole.events_until.seconds < held_out <= START + NUM_DAYS * 86_400
    assert validation.merge == records_pb2.MergeSpec()
    assert not (path.parent / layout.MERGE_MODEL).exists()
    assert not validation.HasField("interest_gpt")
    assert validation.grounding_threshold == whole.grounding_threshold
    assert validation.tower.fingerprint != whole.tower.fingerprint


def test_a_build_that_is_up_to_date_does_nothing(host: Host, built: BuildResult) -> None:
    again = host.build(hold_out=0.1)
    assert _ran(again) == set()
    assert again.snapshot == built.snapshot


def test_a_change_of_the_merge_rebuilds_only_what_depends_on_it(host: Host, built: BuildResult) -> None:
    again = host.build(hold_out=0.1, merge={"trees": 10})
    assert _ran(again) == {"merge", "snapshot", "canary", "publish"}
    assert again.snapshot != built.snapshot
    assert wanted(host.out / "snapshots") == again.snapshot.name
    host.build(hold_out=0.1)


def test_too_few_positives_leave_a_snapshot_that_fuses_ranks(host: Host, built: BuildResult) -> None:
    host.build(hold_out=0.1)
    # Scores that are no probabilities, and lists that are worse or more alike, would not pass.
    any_scores = {"max_score_factor": 1e9, "max_novel_recall_drop": 1.0, "max_coverage_drop": 1.0}
    again = host.build(hold_out=0.1, merge={"min_positives": 1_000_000}, gate=any_scores)
    assert _ran(again) == {"merge", "snapshot", "canary", "publish"}
    assert not layout.read_manifest(again.snapshot).merge.id
    assert not (again.snapshot / layout.MERGE_MODEL).exists()
    canary = read_canary(again.snapshot)
    assert canary is not None
    assert (canary.violations, canary.degraded) == (0, 0)
    assert canary.novel_recall is not None
    host.build(hold_out=0.1, gate=any_scores)


def test_a_build_takes_up_what_the_closed_loop_came_to_since(host: Host, built: BuildResult) -> None:
    parser = argparse.ArgumentParser()
    coevolution.add_arguments(parser)
    later = ["--build", str(host.out), "--dataset", str(host.folder)]
    assert coevolution.run(parser.parse_args(later)) == 0
    again = host.build(hold_out=0.1)
    assert _ran(again) == {"snapshot", "canary", "publish"}
    manifest = layout.read_manifest(again.snapshot)
    assert manifest.coevolution == read_coevolution_spec(host.out / "coevolution")
    assert manifest.coevolution.generation == layout.read_manifest(built.snapshot).coevolution.generation + 1
    assert manifest.groups == layout.read_manifest(built.snapshot).groups
    assert _ran(host.build(hold_out=0.1)) == set()


def test_a_snapshot_outside_the_bounds_is_refused_and_the_old_one_stays(host: Host, built: BuildResult) -> None:
    before = wanted(host.out / "snapshots")
    refusing = {"merge": {"trees": 20}, "gate": {"min_novel_recall": 1.0}}
    with pytest.raises(GateRefusedError, match=r"novel recall: found 0\.\d+, expected at least 1"):
        host.build(hold_out=0.1, **refusing)
    assert wanted(host.out / "snapshots") == before


def test_logs_too_short_to_distil_from_still_make_a_snapshot(host: Host, built: BuildResult) -> None:
    host.build(hold_out=0.1)
    again = host.build(hold_out=0.1, interest_gpt={"dataset": {"horizon_days": 80.0}})
    numbers = {outcome.step: outcome.numbers for outcome in again.outcomes}
    assert "expected logs of at least three times the horizon" in str(numbers["interest_gpt"]["trained"])
    assert numbers["snapshot"]["InterestGPT"] == "none"
    assert _ran(again) == {"interest_gpt", "snapshot", "canary", "publish"}
    assert not layout.read_manifest(again.snapshot).HasField("interest_gpt")
    without = host.build(hold_out=0.1, interest_gpt={"enabled": False})
    assert "interest_gpt" not in {outcome.step for outcome in without.outcomes}
    assert not layout.read_manifest(without.snapshot).HasField("interest_gpt")


def test_a_hosts_own_model_serves_through_the_whole_chain(host: Host, tmp_path: Path) -> None:
    write_own_model(tmp_path / "own", item_vectors(host.folder))
    result = replace(host, out=tmp_path / "out").build(
        group_source=False,
        graph_source=False,
        interest_gpt={"enabled": False},
        towers={"own": {"directory": str(tmp_path / "own"), "trained_until": "2020-01-01"}},
    )
    manifest = layout.read_manifest(result.snapshot)
    spec, dim = read_tower(tmp_path / "out" / "towers")
    assert (manifest.tower, manifest.vector_index.dim) == (spec, dim)
    assert result.published
    with pipeline.open_pipeline(result.snapshot, tmp_path / "out" / "towers" / ONNX) as recall:
        response = recall(channel_pb2.RecallRequest(user_id="u0003", count=20))
    assert not response.degraded
    assert response.versions.user_tower == spec.model_name
    place_pinned(manifest, tmp_path / "out", tmp_path / "models")
    assert (tmp_path / "models" / spec.model_name / "1" / ONNX).is_file()


def test_a_user_on_the_erasure_list_is_in_nothing_that_is_built(host: Host, built: BuildResult, tmp_path: Path) -> None:
    assert _files_naming("u0007", built.snapshot)
    with ErasureList(tmp_path / "erasures") as erasures:
        erasures.add("u0007")
    again = host.build(erasures=tmp_path / "erasures", hold_out=0.1)
    assert {"held_out/logs", "logs", "validation/logs", "snapshot"} <= _ran(again)
    assert layout.read_manifest(again.snapshot).counts.users == 89
    older = [path for path in again.snapshot.parent.iterdir() if path != again.snapshot]
    named = _files_naming("u0007", host.out)
    assert [path for path in named if not any(snapshot in path.parents for snapshot in older)] == []


def _files_naming(user_id: str, directory: Path) -> list[Path]:
    """Files in which a user's id occurs, or, for Parquet, which compresses, may be read."""
    found = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            with duckdb.connect() as connection:
                content = str(connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()).encode()
        if user_id.encode() in content:
            found.append(path)
    return found


def test_a_configuration_names_every_field_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text("hold_out = 2.0\n[gate]\nmin_fil = 0.1\n")
    with pytest.raises(BuildConfigError) as refused:
        load_build_config(path)
    assert "hold_out: found 2.0" in str(refused.value)
    assert "gate.min_fil: found 0.1, but there is no such key; do you mean gate.min_fill?" in str(refused.value)
    path.write_text("hold_out = ")
    with pytest.raises(BuildConfigError, match="expected TOML"):
        load_build_config(path)


def test_what_is_given_lies_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text("[gate]\nmin_fill = 0.1\nmax_empty = 0.5\n[canary]\ncount = 7\n")
    config = load_build_config(path, {"gate": {"min_fill": 0.2}, "logs": {"until": "2024-01-01"}})
    assert (config.gate.min_fill, config.gate.max_empty, config.canary.count) == (0.2, 0.5, 7)
    assert config.logs.until == 1_704_067_200
    assert load_build_config(None) == BuildConfig()


def test_every_field_of_the_configuration_says_what_it_is() -> None:
    assert [key.path for key in keys(BuildConfig) if not key.field.description] == []


def test_a_table_that_is_not_one_is_named_with_those_that_may_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text("[trainer]\nmax_epochs = 1\n[zzz]\n")
    with pytest.raises(BuildConfigError) as refused:
        load_build_config(path)
    assert "trainer: found {'max_epochs': 1}, but there is no such key; do you mean towers.trainer" in str(
        refused.value
    )
    assert "zzz: found {}, but there is no such key; `serendip build --write-config FILE` lists" in str(refused.value)


def test_a_table_that_gives_some_keys_leaves_the_builds_own_defaults_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text("[interest_gpt.dataset]\nhorizon_days = 3\n[interest_gpt.dataset.facts]\n")
    expected = BuildConfig().interest_gpt.dataset.model_copy(update={"horizon_days": 3.0})
    assert load_build_config(path).interest_gpt.dataset == expected


def test_the_configuration_that_is_written_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    write_build_config(path)
    assert load_build_config(path) == BuildConfig()
    assert load_build_config(path).logs.model_fields_set == set()
    with pytest.raises(BuildConfigError, match=r"build\.toml: cannot be written .* expected a new file's name"):
        write_build_config(path)


def test_every_key_that_is_written_reads_back_as_its_default(tmp_path: Path) -> None:
    path, lines, wanted = tmp_path / "build.toml", [], True
    write_build_config(path)
    for line in path.read_text().splitlines():
        # Tables that are commented out are there only when they are wanted; a key without a value has no default.
        wanted = not line.startswith("#[") if "[" in line[:2] else wanted
        lines.append(line[1:] if wanted and re.fullmatch(r"#\w+ = .+", line) else line)
    path.write_text("\n".join(lines))
    assert load_build_config(path).model_dump() == BuildConfig().model_dump()
    given = [line for line in lines if re.fullmatch(r"\w+ = .+", line)]
    expected = [key for key in keys(BuildConfig) if not key.optional and key.default is not None]
    assert len(given) == len(expected) > 100
