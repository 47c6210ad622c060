"""The build's steps that make the graph: as of the cut, where the choices are made, then of all logs."""

from __future__ import annotations

from pathlib import Path

from serendipity.offline.build_config import BuildConfig
from serendipity.offline.graph.builder import SUMMARY, GraphSummary, build_graph
from serendipity.offline.graph.category_interests import CategoryInterests, read_answers
from serendipity.offline.graph.interest_graph import GraphError
from serendipity.offline.interest_steps import LOGS_CODE
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.steps import Numbers, Step
from serendipity.offline.workers import StepContext

_GRAPH_CODE = (
    *LOGS_CODE, "serendipity.offline.graph", "serendipity.offline.evaluate.held_out", "serendipity.interests",
)  # fmt: skip
_LANGUAGE_MODEL_CODE = ("serendipity.offline.language_models", "serendipity.offline.interests.hops")

GRAPH = "graph"
VALIDATION_GRAPH = "validation/graph"


class GraphSteps:
    """Makes the steps of one build. out: the build directory; cache: directory of what may be lost: what language
    models answered."""

    def __init__(self, config: BuildConfig, out: Path, cache: Path) -> None:
        self._config = config
        self._out = out
        self._cache = cache

    def steps(self) -> list[Step]:
        """Make the graph as of the cut, and choose how on the latest of its own clicks; then that of all logs as it was
        chosen. None are wanted without the source."""
        if not self._config.graph_source:
            return []
        config, model = self._config.graph.model_dump(mode="json"), self._config.graph.held.language_model
        weights = [model.path] if model and model.kind == "local" else []
        code = (*_GRAPH_CODE, *(_LANGUAGE_MODEL_CODE if model else ()))
        before, logs = self._out / VALIDATION_GRAPH, self._out / "logs"
        first = [self._out / "validation" / "logs", *weights]
        return [
            Step(VALIDATION_GRAPH, first, config, code, self._choose),
            Step(GRAPH, [logs, before, *weights], config, code, self._make_as_chosen),
        ]

    def directory(self, name: str = GRAPH) -> Path | None:
        """Where a graph of this build lies; None if none is wanted, or none could be made."""
        made = (self._out / name / SUMMARY).is_file()
        return self._out / name if self._config.graph_source and made else None

    def _choose(self, context: StepContext) -> Numbers:
        return self._make(self._out / "validation" / "logs", None, context)

    def _make_as_chosen(self, context: StepContext) -> Numbers:
        before = self.directory(VALIDATION_GRAPH)
        return self._make(self._out / "logs", before, context) if before else {"made": "no: as of the cut none was"}

    def _make(self, logs: Path, before: Path | None, context: StepContext) -> Numbers:
        config = self._config.graph
        named = None
        if config.held.language_model:
            # Categories that were asked about as of the cut are not asked about again.
            asked = open_language_model(config.held.language_model, self._cache / "completions")
            named = CategoryInterests(asked, read_answers(before) if before else {})
        choice = GraphSummary.read(before).choice if before else None
        try:
            built = build_graph(logs, context.directory, config, choice=choice, named=named, progress=context.progress)
        except GraphError as error:
            return {"made": f"no: {error}"}
        return {
            **built.nodes,
            **built.edges,
            "held at most": built.choice.most_held,
            **(named.numbers if named else {}),
            **({"epochs": built.choice.epochs} if config.trained else {"power": built.choice.power}),
            "power of the trend": built.choice.trend,
        }
