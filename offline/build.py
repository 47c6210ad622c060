"""The order of the builders: logs → interests, towers, groups, lists, graph → merge → snapshot → publication.

`_Build.plan` lists what is made of what; what does not depend on each other may be made at the same time.

How candidates are merged is learned on time that the towers have not seen: they are trained twice anyway, first on
labels that end at a cut, then on everything. What the first training can do is made a snapshot as of the cut
(<out>/validation) and replayed over what follows; the second training's snapshot takes over what was learned.

    <out>/host/  logs/  interests/  towers/      docs/architecture.md
    <out>/interest_gpt/                          what refreshes interests near-line
    <out>/validation/{logs,interests,coevolution,graph,snapshot}/
    <out>/groups/  coevolution/                  groups of users; the two LLMs and their novel-category lists
    <out>/graph/                                 what users are folded into at request time
    <out>/merge/                                 merge.json, merge.onnx, report.json
    <out>/snapshot/                              snapshot.json: the version in <out>/snapshots this build made
    <out>/snapshots/<version>/
    <out>/canary/                                canary.json
    <out>/report.html                            all of this as a page (offline.build_report)
    <out>/held_out/logs/                         all of the logs, where a share of them is held out for evaluation
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from rich.console import Console
from rich.progress import Progress

from serendipity import layout
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.build_report import write_report
from serendipity.offline.datasets.registry import ADAPTERS, HostData, prepare
from serendipity.offline.encoder import default_path
from serendipity.offline.graph_steps import GRAPH, VALIDATION_GRAPH, GraphSteps
from serendipity.offline.group_steps import COEVOLUTION, COEVOLUTION_CODE, GroupSteps
from serendipity.offline.interest_steps import INTERESTS_CODE, LOGS_CODE, InterestSteps
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.logs.host_table import host_files, object_key
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.sufficiency import require_sufficient
from serendipity.offline.merge.builder import REPORT, OpenRecall, learn_merge, read_merge
from serendipity.offline.progress import build_display, summary
from serendipity.offline.snapshot.build_directory import BuildDirectories, read_contents
from serendipity.offline.snapshot.canary import Canary, ask_canary
from serendipity.offline.snapshot.gate import pass_gate, read_canary, record_canary
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.stores import store_size
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.offline.steps import Numbers, Outcome, Step, needed_for, run_steps
from serendipity.offline.towers.builder import FIT, build_towers
from serendipity.offline.towers.export import ONNX
from serendipity.offline.towers.own_model import take_own_model
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.workers import StepContext
from serendipity.v1 import channel_pb2, records_pb2

SNAPSHOTS = "snapshots"
SNAPSHOT = "snapshot.json"
CANARY = "canary.json"

_TOWERS_CODE = (
    *INTERESTS_CODE, "serendipity.offline.towers", "serendipity.offline.export", "serendipity.features",
    "serendipity.offline.evaluate.held_out",
)  # fmt: skip
_SNAPSHOT_CODE = (
    *COEVOLUTION_CODE, "serendipity.offline.snapshot", "serendipity.offline.graph.served_graph", "serendipity.features",
    "serendipity.layout",
)  # fmt: skip
_MERGE_CODE = (
    *LOGS_CODE, "serendipity.offline.merge", "serendipity.offline.evaluate", "serendipity.features",
)  # fmt: skip

_ORDER = (
    "host", "held_out/logs", "logs", "interests", "towers", "validation/logs", "groups", "validation/interests",
    "validation/coevolution", "validation/graph", "validation/snapshot", "merge", COEVOLUTION, "interest_gpt", GRAPH,
    "snapshot", "canary",
)  # fmt: skip

_REPLAYED = 200_000
"""Items below which the snapshot that is replayed is searched exactly."""

Publish = Callable[[Path], None]
"""Makes a snapshot directory, which has passed the gate, the wanted one; raises if it cannot."""


@dataclass(frozen=True)
class BuildResult:
    """A finished build. snapshot: directory of the snapshot; published: whether it is the wanted one now."""

    outcomes: tuple[Outcome, ...]
    snapshot: Path
    canary: Canary
    published: bool


def build(
    config: BuildConfig,
    out: Path,
    *,
    open_recall: OpenRecall,
    recall_code: Sequence[str],
    publish: Publish | None,
    console: Console,
    erasures: Path | None = None,
    clock: Callable[[], float] = time.time,
    workers: int = 1,
) -> BuildResult:
    """Bring everything below `out` up to date, skipping what is by content, and publish the snapshot.

    open_recall: the real pipeline, for the replay and the canary; recall_code: modules whose source it depends on: a
    pipeline that recalls differently is replayed anew. publish: None to leave the snapshot unpublished. erasures: the
    list of users to be forgotten, of whom nothing is built; None: there is none. clock: Unix seconds. workers: steps
    that are made at the same time, each in a spawned process, for which open_recall and clock must be picklable; 1: all
    in this one. Either makes the same, each step on one thread.
    Raises GateRefusedError when the snapshot may not be published, and what the builders raise; a build that was
    killed or failed is continued by the next.
    """
    builder = _Build(config, out.absolute(), open_recall, recall_code, Erasures.read(erasures), clock)
    plan = builder.plan()
    with build_display(console, len(plan) + 1) as display, limited_threads(1):
        outcomes = run_steps(plan, builder.out, display, workers=workers)
        start = time.monotonic()
        display.started("publish")
        snapshot = builder.snapshot()
        canary = Canary.from_quality(json.loads((builder.out / "canary" / CANARY).read_text(encoding="utf-8")))
        assert canary is not None
        write_report(builder.out, f"{snapshot.name} of {config.dataset}", outcomes)
        published, numbers = _publish(snapshot, canary, config, publish)
        outcomes.append(Outcome("publish", published, time.monotonic() - start, numbers))
        display.finished(outcomes[-1])
    console.print(summary(outcomes))
    return BuildResult(tuple(outcomes), snapshot, canary, wanted(snapshot.parent) == snapshot.name)


def build_step(
    name: str,
    config: BuildConfig,
    out: Path,
    *,
    open_recall: OpenRecall,
    recall_code: Sequence[str],
    console: Console,
    erasures: Path | None = None,
    clock: Callable[[], float] = time.time,
    workers: int = 1,
) -> list[Outcome]:
    """Bring one step up to date, with those that it is made of and no other. Arguments and errors are those of `build`;
    raises StepError for a name that is no step's."""
    builder = _Build(config, out.absolute(), open_recall, recall_code, Erasures.read(erasures), clock)
    plan = needed_for(name, builder.plan(), builder.out)
    with build_display(console, len(plan)) as display, limited_threads(1):
        outcomes = run_steps(plan, builder.out, display, workers=workers)
    console.print(summary(outcomes))
    return outcomes


def wanted(snapshots: Path) -> str:
    """Version of the wanted snapshot; empty if there is none."""
    try:
        return (snapshots / layout.CURRENT).readlink().name
    except OSError:
        return ""


def _publish(snapshot: Path, canary: Canary, config: BuildConfig, publish: Publish | None) -> tuple[bool, Numbers]:
    current = wanted(snapshot.parent)
    if current == snapshot.name:
        return False, {"version": snapshot.name}
    before = snapshot.parent / current
    findings = pass_gate(canary, read_canary(before) if current and before.is_dir() else None, config.gate)
    if publish is None:
        return False, {"version": snapshot.name, "bounds held": len(findings), "published": "no"}
    publish(snapshot)
    return True, {"version": snapshot.name, "bounds held": len(findings)}


class _Build:
    """The steps of one build. Goes to its workers pickled."""

    def __init__(
        self,
        config: BuildConfig,
        out: Path,
        open_recall: OpenRecall,
        recall_code: Sequence[str],
        erasures: Erasures,
        clock: Callable[[], float],
    ) -> None:
        self.config = config
        self.out = out
        self._open_recall = open_recall
        self._recall_code = tuple(recall_code)
        self._erasures = erasures
        self._clock = clock
        self._host = _host_data(config.dataset, out)
        cache = out / ".cache"
        self._interests = InterestSteps(config, out, config.text_encoder or default_path(), cache)
        self._groups = GroupSteps(config, out, cache)
        self._graphs = GraphSteps(config, out, cache)

    def plan(self) -> list[Step]:
        """List the steps; of those that could be made next, what most is waiting for stands first."""
        own = (*self._logs_steps(), self._towers_step(), *self._merge_steps(), *self._snapshot_steps())
        made = (*own, *self._interests.steps(), *self._groups.steps(), *self._graphs.steps())
        return sorted(made, key=lambda step: _ORDER.index(step.name))

    def snapshot(self) -> Path:
        """Directory of the snapshot this build made."""
        found = json.loads((self.out / "snapshot" / SNAPSHOT).read_text(encoding="utf-8"))
        return self.out / SNAPSHOTS / str(found["version"])

    def _logs_steps(self) -> list[Step]:
        config = self.config
        host, objects = self._host_inputs()
        # The hash of the list: a step's stamp must not name whom it forgot.
        reading = self._logs_config(config.logs.until).model_dump(mode="json")
        configuration = {**reading, "erasures": self._erasures.hash, "objects": objects}
        held_out, logs = self.out / "held_out" / "logs", self.out / "logs"
        steps = []
        if config.dataset in ADAPTERS:
            source = ADAPTERS[config.dataset].locate()
            code = ["serendipity.offline.datasets", "serendipity.offline.parquet"]
            steps.append(Step("host", [source], {"dataset": config.dataset}, code, self._write_host))
        if config.hold_out:
            steps.append(Step("held_out/logs", host, configuration, LOGS_CODE, self._read_all))
        inputs = [*host, held_out] if config.hold_out else host
        up_to, cut = config.hold_out, config.towers.rows.label_window
        return [
            *steps,
            Step("logs", inputs, {**configuration, "hold_out": up_to}, LOGS_CODE, self._read_what_is_not_held_out),
            Step("validation/logs", [*host, logs], {**configuration, "cut": cut}, LOGS_CODE, self._read_up_to_the_cut),
        ]

    def _host_inputs(self) -> tuple[list[Path], dict[str, str]]:
        """Files that the logs are made of, and of those in object storage what tells that one has changed."""
        if self.config.dataset in ADAPTERS:
            return [Path(self._host.root)], {}
        files = [
            file for table in self.config.logs.tables for file in host_files(self._host.root, table, self.config.logs)
        ]
        remote = [file for file in files if "://" in file]
        return [Path(file) for file in files if file not in remote], {file: object_key(file) for file in remote}

    def _write_host(self, context: StepContext) -> Numbers:
        adapter = ADAPTERS[self.config.dataset]
        with duckdb.connect() as connection:
            adapter.write(adapter.locate(), context.directory, connection)
        return {"dataset": adapter.name}

    def _read_all(self, context: StepContext) -> Numbers:
        return self._read_logs(self.config.logs.until, context)

    def _read_what_is_not_held_out(self, context: StepContext) -> Numbers:
        until = self.config.logs.until
        if self.config.hold_out:
            (until,) = split_times(self.out / "held_out" / "logs", (1 - self.config.hold_out,))
        read = self._read_logs(until, context)
        require_sufficient(context.directory, self.config.wanted_of_logs)
        return read

    def _read_up_to_the_cut(self, context: StepContext) -> Numbers:
        return self._read_logs(self._cut(), context, warn=False)

    def _read_logs(self, until: int | None, context: StepContext, *, warn: bool = True) -> Numbers:
        now, config = int(self._clock()), self._logs_config(until)
        built = build_logs(self._host.root, context.directory, config, now, self._erasures, warn=warn)
        counts = {name: built.counts[name] for name in ("users", "catalogue", "clicks", "signals")}
        numbers = {**counts, "rejected": sum(built.rejected.values()), "erased": built.erased["users"]}
        return {**numbers, "warning:": "; ".join(built.warnings)} if built.warnings else numbers

    def _logs_config(self, until: int | None) -> LogsConfig:
        logs = self.config.logs
        level = logs.novelty_level if "novelty_level" in logs.model_fields_set else self._host.novelty_level
        return LogsConfig.model_validate({**logs.model_dump(), "novelty_level": level, "until": until})

    def _cut(self) -> int:
        """Tell where the labels of the first training end."""
        (cut,) = split_times(self.out / "logs", (1 - self.config.towers.rows.label_window,))
        return cut

    def _towers_step(self) -> Step:
        own, config = self.config.towers.own, self.config.towers.model_dump(mode="json")
        inputs = [self.out / "logs", self.out / "interests", *([own.directory.absolute()] if own else [])]
        return Step("towers", inputs, config, _TOWERS_CODE, self._train_towers)

    def _train_towers(self, context: StepContext) -> Numbers:
        logs, interests = self.out / "logs", self.out / "interests"
        if own := self.config.towers.own:
            spec, unknown = take_own_model(logs, interests, context.directory, own, self.config.towers)
            return {"own tower": spec.fingerprint, "items without a vector": unknown}
        built = build_towers(logs, interests, context.directory, self.config.towers, progress=context.progress)
        return {"tower": built.fingerprint, "epochs": built.epochs, **built.validation}

    def _merge_steps(self) -> list[Step]:
        validation, towers = self.out / "validation", self.out / "towers" / FIT
        of_groups, of_graph = self._sources("validation/coevolution", VALIDATION_GRAPH)
        of_snapshot = [validation / "logs", validation / "interests", towers, *of_groups, *of_graph]
        inputs = [self.out / "logs", validation / "snapshot", towers]
        code = (*_MERGE_CODE, *self._recall_code)
        return [
            Step("validation/snapshot", of_snapshot, self._indexing(), _SNAPSHOT_CODE, self._write_unmerged),
            Step("merge", inputs, self.config.merge.model_dump(), code, self._learn_merge),
        ]

    def _sources(self, coevolution: str, graph: str) -> tuple[list[Path], list[Path]]:
        """List the directories of groups and lists, and of the graph, as far as they are wanted."""
        groups = [self.out / "groups", self.out / coevolution] if self.config.group_source else []
        return groups, [self.out / graph] if self.config.graph_source else []

    def _indexing(self) -> dict[str, object]:
        return {"index": self.config.index.model_dump(mode="json"), "dataset": self._host.name}

    def _write_unmerged(self, context: StepContext) -> Numbers:
        directories = BuildDirectories(
            logs=self.out / "validation" / "logs",
            interests=self.out / "validation" / "interests",
            towers=self.out / "towers" / FIT,
            groups=self._groups.groups_directory(),
            coevolution=self._groups.coevolution_directory("validation/coevolution"),
            graph=self._graphs.directory(VALIDATION_GRAPH),
        )
        # Asked a few thousand times and thrown away: up to there making indexes takes longer than doing without.
        index = self.config.index.model_copy(update={"exact_below": max(_REPLAYED, self.config.index.exact_below)})
        unmerged = (records_pb2.MergeSpec(), None)
        return _describe(self._write(directories, context.directory, unmerged, context.progress, index))

    def _learn_merge(self, context: StepContext) -> Numbers:
        logs = self.out / "logs"
        (version,) = (self.out / "validation" / "snapshot").glob(f"*/{layout.MANIFEST}")
        task = context.progress.add_task("replay", total=None)
        merged = learn_merge(
            self._open_recall,
            version.parent,
            self.out / "towers" / FIT / ONNX,
            Histories.read(logs),
            Catalogue.read(logs),
            self._cut(),
            LogsSummary.read(logs).events_until,
            config=self.config.merge,
            advance=lambda done: context.progress.advance(task, done),
        )
        merged.write(context.directory)
        report = merged.report
        recall = report.merged or report.fused
        earned = [channel_pb2.Source.Name(each.source) for each in merged.spec.sources if each.earned]
        return {
            "users": report.users,
            "candidates": report.candidates,
            "positives": report.positives,
            "ECE": report.reliability.expected_calibration_error if report.reliability else "–",
            "novel recall@20": "–" if recall is None else recall[0],
            "surprise": merged.spec.surprise,
            "earned": ", ".join(name.removeprefix("SOURCE_").lower() for name in earned) or "–",
        }

    def _snapshot_steps(self) -> list[Step]:
        of_groups, of_graph = self._sources(COEVOLUTION, GRAPH)
        interest_gpt = [self.out / "interest_gpt"] if self.config.interest_gpt.enabled else []
        inputs = [self.out / name for name in ("logs", "interests", "towers", "merge")]
        inputs += [*interest_gpt, *of_groups, *of_graph]
        asked = [self.out / "snapshot", self.out / "towers"]
        code = (*_MERGE_CODE, *self._recall_code, "serendipity.offline.snapshot.canary")
        return [
            Step("snapshot", inputs, self._indexing(), _SNAPSHOT_CODE, self._write_snapshot, products=self._manifests),
            Step("canary", asked, self.config.canary.model_dump(), code, self._ask_canary),
        ]

    def _manifests(self, numbers: Numbers) -> list[Path]:
        return [self.out / SNAPSHOTS / str(numbers["version"]) / layout.MANIFEST]

    def _write_snapshot(self, context: StepContext) -> Numbers:
        directories = BuildDirectories(
            logs=self.out / "logs",
            interests=self.out / "interests",
            towers=self.out / "towers",
            interest_gpt=self._interests.interest_gpt_directory(),
            groups=self._groups.groups_directory(),
            coevolution=self._groups.coevolution_directory(),
            graph=self._graphs.directory(),
        )
        merge = read_merge(self.out / "merge")
        snapshot = self._write(directories, self.out / SNAPSHOTS, merge, context.progress, self.config.index)
        layout.write_atomically(context.directory / SNAPSHOT, json.dumps({"version": snapshot.name}).encode())
        return _describe(snapshot)

    def _ask_canary(self, context: StepContext) -> Numbers:
        snapshot, logs = self.snapshot(), self.out / "logs"
        task = context.progress.add_task("canary", total=None)
        report = json.loads((self.out / "merge" / REPORT).read_text(encoding="utf-8"))
        measured = report["merged"] or report["fused"]
        with self._open_recall(snapshot, self.out / "towers" / ONNX) as recall:
            canary = ask_canary(
                recall,
                Histories.read(logs),
                Catalogue.read(logs),
                LogsSummary.read(logs).events_until,
                self.config.canary,
                novel_recall=measured[0] if measured else None,
                advance=lambda done: context.progress.advance(task, done),
            )
        record_canary(snapshot, canary)
        layout.write_atomically(context.directory / CANARY, json.dumps(canary.to_quality(), indent=2).encode())
        return {
            "users": canary.users,
            "fill": canary.fill,
            "coverage": canary.coverage,
            "novelty violations": canary.violations,
        }

    def _write(
        self,
        directories: BuildDirectories,
        root: Path,
        merge: tuple[records_pb2.MergeSpec, bytes | None],
        progress: Progress,
        index: IndexConfig,
    ) -> Path:
        task = progress.add_task("stored vectors", total=None)
        contents = read_contents(
            directories,
            merge=merge[0],
            merge_model=merge[1],
            dataset=self._host.name,
            build_configuration=self.config.model_dump_json(),
            advance=lambda done: progress.advance(task, done),
        )
        return write_snapshot(contents, root, created_at=int(self._clock()), index=index)


def _host_data(dataset: str, out: Path) -> HostData:
    adapter = ADAPTERS.get(dataset)
    return HostData(adapter.name, str(out / "host"), adapter.novelty_level) if adapter else prepare(dataset, out)


def _describe(snapshot: Path) -> Numbers:
    manifest = layout.read_manifest(snapshot)
    size = sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file())
    return {
        "version": manifest.version,
        "users": manifest.counts.users,
        "items": manifest.counts.items,
        "MB": size / 1e6,
        "interest nodes": manifest.counts.interest_nodes,
        "bytes of interests per user": store_size(snapshot / layout.INTERESTS).mean_value_bytes,
        "bytes of paths per user": store_size(snapshot / layout.INTEREST_PATHS).mean_value_bytes,
        "bytes of signals per user": store_size(snapshot / layout.SIGNALS).mean_value_bytes,
        "groups": manifest.groups.num_groups,
        "held interests": len(manifest.graph.interests),
        "novel-category lists": store_size(snapshot / layout.NOVEL_CATEGORIES).entries,
        "InterestGPT": manifest.interest_gpt.model_name or "none",
        "index": manifest.vector_index.kind,
        "recall@100 of the index": manifest.vector_index.recall_at_100,
    }
