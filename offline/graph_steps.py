"""The build's steps that make the graph: as of the cut, where the choices are made, then of all logs."""

from __future__ import annotations

from pathlib import Path

from serendipity.offline.build_config import BuildConfig
from serendipity.offline.graph.builder import SUMMARY, GraphSummary, build_graph
from serendipity.offline.graph.interest_graph import GraphError
from serendipity.offline.interest_steps import LOGS_CODE
from serendipity.offline.steps import Numbers, Step, StepContext

_GRAPH_CODE = (
    *LOGS_CODE, "serendipity.offline.graph", "serendipity.offline.evaluate.held_out", "serendipity.interests",
)  # fmt: skip

GRAPH = "graph"
VALIDATION_GRAPH = "validation/graph"


class GraphSteps:
    """Makes the steps of one build. out: the build directory."""

    def __init__(self, config: BuildConfig, out: Path) -> None:
        self._config = config
        self._out = out

    def validation_graph(self) -> Step:
        """Make the graph as of the cut, and choose how on the latest of its own clicks."""
        return self._step(VALIDATION_GRAPH, "validation/logs", None)

    def graph(self) -> Step:
        """Make the graph of all logs as it was chosen before."""
        return self._step(GRAPH, "logs", self._out / VALIDATION_GRAPH)

    def directory(self, name: str = GRAPH) -> Path | None:
        """Where a graph of this build lies; None if none is wanted, or none could be made."""
        directory = self._out / name
        return directory if self._config.graph_source and (directory / SUMMARY).is_file() else None

    def _step(self, name: str, of_logs: str, before: Path | None) -> Step:
        logs, config = self._out / of_logs, self._config.graph

        def run(context: StepContext) -> Numbers:
            choice = GraphSummary.read(before).choice if before else None
            try:
                built = build_graph(logs, context.directory, config, choice=choice, progress=context.progress)
            except GraphError as error:
                return {"made": f"no: {error}"}
            return {
                **built.nodes,
                **built.edges,
                "held at most": built.choice.most_held,
                **({"epochs": built.choice.epochs} if config.trained else {"power": built.choice.power}),
                "power of the trend": built.choice.trend,
            }

        inputs = [logs, *([before] if before else [])]
        return Step(name, inputs, config.model_dump(mode="json"), _GRAPH_CODE, run, resumable=True)
