"""The build's steps that make the graph: as of the cut, where the choices are made, then of all logs."""

from __future__ import annotations

from pathlib import Path

from serendipity.offline.build_config import BuildConfig
from serendipity.offline.graph.builder import SUMMARY, GraphSummary, build_graph
from serendipity.offline.graph.category_interests import CategoryInterests, read_answers
from serendipity.offline.graph.interest_graph import GraphError
from serendipity.offline.interest_steps import LOGS_CODE
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.steps import Numbers, Step, StepContext

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

    def validation_graph(self) -> Step:
        """Make the graph as of the cut, and choose how on the latest of its own clicks."""
        return self._step(VALIDATION_GRAPH, "validation/logs", None)

    def graph(self) -> Step | None:
        """Make the graph of all logs as it was chosen before; None where none could be."""
        if not self.directory(VALIDATION_GRAPH):
            return None
        return self._step(GRAPH, "logs", self._out / VALIDATION_GRAPH)

    def directory(self, name: str = GRAPH) -> Path | None:
        """Where a graph of this build lies; None if none is wanted, or none could be made."""
        # Without a choice no graph of all logs is made, and one that lies there is of an earlier build.
        made = all((self._out / each / SUMMARY).is_file() for each in (VALIDATION_GRAPH, name))
        return self._out / name if self._config.graph_source and made else None

    def _step(self, name: str, of_logs: str, before: Path | None) -> Step:
        logs, config = self._out / of_logs, self._config.graph
        model = config.held.language_model

        def run(context: StepContext) -> Numbers:
            choice = GraphSummary.read(before).choice if before else None
            named = None
            if model:
                # Categories that were asked about as of the cut are not asked about again.
                asked = open_language_model(model, self._cache / "completions")
                named = CategoryInterests(asked, read_answers(before) if before else {})
            try:
                built = build_graph(
                    logs, context.directory, config, choice=choice, named=named, progress=context.progress
                )
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

        inputs = [logs, *([before] if before else []), *([model.path] if model and model.kind == "local" else [])]
        code = (*_GRAPH_CODE, *(_LANGUAGE_MODEL_CODE if model else ()))
        return Step(name, inputs, config.model_dump(mode="json"), code, run, resumable=True)
