"""The order of the builders: logs → interests, towers, groups, lists, graph → merge → snapshot → publication.

`_Build.plan` says what is made after what; what does not depend on each other may be made at the same time.

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
from serendipity.offline.datasets.registry import ADAPTERS, HostData, prepare
from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.graph_steps import VALIDATION_GRAPH, GraphSteps
from serendipity.offline.group_steps import COEVOLUTION_CODE, GroupSteps
from serendipity.offline.interest_steps import INTERESTS_CODE, LOGS_CODE, InterestSteps
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.merge.builder import REPORT, OpenRecall, learn_merge, read_merge
from serendipity.offline.progress import build_display, summary
from serendipity.offline.snapshot.build_directory import BuildDirectories, read_contents
from serendipity.offline.snapshot.canary import Canary, ask_canary
from serendipity.offline.snapshot.gate import pass_gate, read_canary, record_canary
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.stores import store_size
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.offline.steps import Numbers, Outcome, Planned, Step, StepContext, run_steps
from serendipity.offline.towers.builder import FIT, build_towers
from serendipity.offline.towers.export import ONNX
from serendipity.offline.towers.threads import limited_threads
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
    if config.dataset not in ADAPTERS:
        prepare(config.dataset, out)  # what is no folder is refused before anything is made
    builder = _Build(config, out.absolute(), open_recall, recall_code, Erasures.read(erasures), clock)
    plan = builder.plan()
    with build_display(console, len(plan) + 1) as display, limited_threads(1):
        outcomes = run_steps(plan, builder.out, display, workers=workers)
        start = time.monotonic()
        display.started("publish")
        snapshot = builder.snapshot()
        canary = Canary.from_quality(json.loads((builder.out / "canary" / CANARY).read_text(encoding="utf-8")))
        assert canary is not None
        published, numbers = _publish(snapshot, canary, config, publish)
        outcomes.append(Outcome("publish", published, time.monotonic() - start, numbers))
        display.finished(outcomes[-1])
    console.print(summary(outcomes))
    return BuildResult(tuple(outcomes), snapshot, canary, wanted(snapshot.parent) == snapshot.name)


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
        self._encoder_path = config.text_encoder or default_path()
        self._encoder: TextEncoder | None = None
        cache = out / ".cache"
        self._interests = InterestSteps(config, out, self._encoder_path, self._text_encoder, cache)
        self._groups = GroupSteps(config, out, cache)
        self._graphs = GraphSteps(config, out, cache)

    def plan(self) -> list[Planned]:
        """Tell what is made after what; of those that could be made next, what most is waiting for stands first."""
        config, interests, groups, graphs = self.config, self._interests, self._groups, self._graphs
        plan = [
            Planned("host", [], self._host),
            Planned("held_out/logs", ["host"], self._held_out_logs),
            Planned("logs", ["host", "held_out/logs"], self._logs),
            Planned("interests", ["logs"], interests.interests),
            Planned("towers", ["interests"], self._towers),
            Planned("validation/logs", ["logs"], self._validation_logs),
            Planned("groups", ["validation/logs"], groups.groups),
            Planned("validation/interests", ["validation/logs", "interests"], interests.validation_interests),
            Planned("validation/coevolution", ["groups", "validation/interests"], groups.validation_coevolution),
            Planned("validation/graph", ["validation/logs"], graphs.validation_graph),
            Planned(
                "validation/snapshot",
                ["towers", "validation/interests", "validation/coevolution", "validation/graph"],
                self._validation_snapshot,
            ),
            Planned("merge", ["validation/snapshot"], self._merge),
            Planned("coevolution", ["validation/coevolution"], groups.coevolution),
            Planned("interest_gpt", ["interests"], interests.interest_gpt),
            Planned("graph", ["validation/graph"], graphs.graph),
            Planned("snapshot", ["merge", "interest_gpt", "coevolution", "graph"], self._snapshot),
            Planned("canary", ["snapshot"], self._canary),
        ]
        made = {
            "host": config.dataset in ADAPTERS,
            "held_out/logs": config.hold_out > 0,
            "interest_gpt": config.interest_gpt.enabled,
            **dict.fromkeys(("groups", "validation/coevolution", "coevolution"), config.group_source),
            **dict.fromkeys(("validation/graph", "graph"), config.graph_source),
        }
        return [planned for planned in plan if made.get(planned.name, True)]

    def snapshot(self) -> Path:
        """Directory of the snapshot this build made."""
        found = json.loads((self.out / "snapshot" / SNAPSHOT).read_text(encoding="utf-8"))
        return self.out / SNAPSHOTS / str(found["version"])

    def _host_data(self) -> HostData:
        adapter = ADAPTERS.get(self.config.dataset)
        if adapter is None:
            return prepare(self.config.dataset, self.out)
        return HostData(adapter.name, self.out / "host", adapter.novelty_level)

    def _host(self) -> Step:
        adapter = ADAPTERS[self.config.dataset]
        source = adapter.locate()

        def run(context: StepContext) -> Numbers:
            with duckdb.connect() as connection:
                adapter.write(source, context.directory, connection)
            return {"dataset": adapter.name}

        return Step("host", [source], {"dataset": adapter.name}, ["serendipity.offline.datasets"], run)

    def _held_out_logs(self) -> Step:
        return self._logs_until("held_out/logs", self.config.logs.until)

    def _logs(self) -> Step:
        until = self.config.logs.until
        if self.config.hold_out:
            (until,) = split_times(self.out / "held_out" / "logs", (1 - self.config.hold_out,))
        return self._logs_until("logs", until)

    def _validation_logs(self) -> Step:
        return self._logs_until("validation/logs", self._cut())

    def _cut(self) -> int:
        """Tell where the labels of the first training end."""
        (cut,) = split_times(self.out / "logs", (1 - self.config.towers.rows.label_window,))
        return cut

    def _logs_until(self, name: str, until: int | None) -> Step:
        host = self._host_data()
        logs = self.config.logs
        level = logs.novelty_level if "novelty_level" in logs.model_fields_set else host.novelty_level
        config = LogsConfig.model_validate({**logs.model_dump(), "novelty_level": level, "until": until})

        def run(context: StepContext) -> Numbers:
            now = int(self._clock())
            built = build_logs(host.directory, context.directory, config, now, self._erasures)
            counts = {name: built.counts[name] for name in ("users", "catalogue", "clicks", "signals")}
            return {**counts, "rejected": sum(built.rejected.values()), "erased": built.erased["users"]}

        # The hash of the list: a step's stamp must not name whom it forgot.
        configuration = {**config.model_dump(mode="json"), "erasures": self._erasures.hash}
        return Step(name, [host.directory], configuration, LOGS_CODE, run)

    def _towers(self) -> Step:
        logs, interests = self.out / "logs", self.out / "interests"
        config = self.config.towers

        def run(context: StepContext) -> Numbers:
            built = build_towers(logs, interests, context.directory, config, progress=context.progress)
            return {"tower": built.fingerprint, "epochs": built.epochs, **built.validation}

        return Step("towers", [logs, interests], config.model_dump(mode="json"), _TOWERS_CODE, run, resumable=True)

    def _validation_snapshot(self) -> Step:
        host = self._host_data()
        directories = BuildDirectories(
            logs=self.out / "validation" / "logs",
            interests=self.out / "validation" / "interests",
            towers=self.out / "towers" / FIT,
            groups=self._groups.groups_directory(),
            coevolution=self._groups.coevolution_directory("validation/coevolution"),
            graph=self._graphs.directory(VALIDATION_GRAPH),
        )

        def run(context: StepContext) -> Numbers:
            unmerged = records_pb2.MergeSpec()
            # Asked a few thousand times and thrown away: up to there making indexes takes longer than doing without.
            index = self.config.index.model_copy(update={"exact_below": max(_REPLAYED, self.config.index.exact_below)})
            snapshot = self._write(directories, context.directory, (unmerged, None), host, context.progress, index)
            return _describe(snapshot)

        configuration = {"index": self.config.index.model_dump(mode="json"), "dataset": host.name}
        return Step("validation/snapshot", _inputs(directories), configuration, _SNAPSHOT_CODE, run)

    def _merge(self) -> Step:
        config = self.config.merge
        snapshot = self.out / "validation" / "snapshot"
        towers = self.out / "towers" / FIT

        def run(context: StepContext) -> Numbers:
            logs = self.out / "logs"
            (version,) = snapshot.glob(f"*/{layout.MANIFEST}")
            task = context.progress.add_task("replay", total=None)
            merged = learn_merge(
                self._open_recall,
                version.parent,
                towers / ONNX,
                Histories.read(logs),
                Catalogue.read(logs),
                self._cut(),
                LogsSummary.read(logs).events_until,
                config=config,
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

        code = (*_MERGE_CODE, *self._recall_code)
        return Step("merge", [self.out / "logs", snapshot, towers], config.model_dump(), code, run)

    def _snapshot(self) -> Step:
        host = self._host_data()
        directories = BuildDirectories(
            logs=self.out / "logs",
            interests=self.out / "interests",
            towers=self.out / "towers",
            interest_gpt=self._interests.interest_gpt_directory(),
            groups=self._groups.groups_directory(),
            coevolution=self._groups.coevolution_directory(),
            graph=self._graphs.directory(),
        )

        def run(context: StepContext) -> Numbers:
            merge = read_merge(self.out / "merge")
            index = self.config.index
            snapshot = self._write(directories, self.out / SNAPSHOTS, merge, host, context.progress, index)
            layout.write_atomically(context.directory / SNAPSHOT, json.dumps({"version": snapshot.name}).encode())
            return _describe(snapshot)

        configuration = {"index": self.config.index.model_dump(mode="json"), "dataset": host.name}
        inputs = [*_inputs(directories), self.out / "merge"]
        return Step(
            "snapshot",
            inputs,
            configuration,
            _SNAPSHOT_CODE,
            run,
            products=lambda numbers: [self.out / SNAPSHOTS / str(numbers["version"]) / layout.MANIFEST],
        )

    def _canary(self) -> Step:
        def run(context: StepContext) -> Numbers:
            snapshot = self.snapshot()
            logs = self.out / "logs"
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

        inputs = [self.out / "snapshot", self.out / "towers"]
        code = (*_MERGE_CODE, *self._recall_code, "serendipity.offline.snapshot.canary")
        return Step("canary", inputs, self.config.canary.model_dump(), code, run)

    def _write(
        self,
        directories: BuildDirectories,
        root: Path,
        merge: tuple[records_pb2.MergeSpec, bytes | None],
        host: HostData,
        progress: Progress,
        index: IndexConfig,
    ) -> Path:
        task = progress.add_task("stored vectors", total=None)
        contents = read_contents(
            directories,
            merge=merge[0],
            merge_model=merge[1],
            dataset=host.name,
            build_configuration=self.config.model_dump_json(),
            advance=lambda done: progress.advance(task, done),
        )
        return write_snapshot(contents, root, created_at=int(self._clock()), index=index)

    def _text_encoder(self) -> TextEncoder:
        if self._encoder is None:
            self._encoder = TextEncoder.from_path(self._encoder_path)
        return self._encoder


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


def _inputs(directories: BuildDirectories) -> list[Path]:
    found = (
        directories.logs, directories.interests, directories.towers, directories.interest_gpt, directories.groups,
        directories.coevolution, directories.graph,
    )  # fmt: skip
    return [directory for directory in found if directory]
