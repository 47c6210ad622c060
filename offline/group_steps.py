"""The build's steps that group users, and that tune the two LLMs which find what is novel to a group.

Groups and LLMs are fitted as of the cut where the towers' first training ends, so that the lists which scores are
calibrated on come from models that have not seen the time they are judged by. What was clicked after the cut is the
increment of the closed loop's next cycles, just as `serendip coevolve` runs them day by day.
"""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from serendipity.groups.model import COEVOLUTION_SPEC, GROUP_SPEC
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.coevolution.builder import (
    ShortLogsError,
    build_coevolution,
    continue_coevolution,
)
from serendipity.offline.coevolution.cycle import STAGES_OF_A_CYCLE, Stage
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.groups.builder import build_groups
from serendipity.offline.groups.group_model import GroupsError
from serendipity.offline.interest_steps import INTERESTS_CODE
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.steps import Numbers, Step
from serendipity.offline.workers import StepContext
from serendipity.v1 import records_pb2

_GROUPS_CODE = (*INTERESTS_CODE, "serendipity.groups", "serendipity.keys", "serendipity.offline.groups")
COEVOLUTION_CODE = (*_GROUPS_CODE, "serendipity.offline.coevolution", "serendipity.offline.tuning")

COEVOLUTION = "coevolution"
_AS_OF_THE_CUT = "validation/coevolution"
"""Step and directory of the LLMs and lists that a snapshot is made of."""

_FITTED_ON = "validation/logs"

_NOTHING: Numbers = {"made": "no: nothing to make it of"}


class GroupSteps:
    """Makes the steps of one build. out: the build directory; cache: directory of what may be lost: what language
    models answered."""

    def __init__(self, config: BuildConfig, out: Path, cache: Path) -> None:
        self._config = config
        self._out = out
        self._cache = cache

    def steps(self) -> list[Step]:
        """Group the users as of the cut; tune both LLMs as of the cut and let them correct each other; go on from there
        with what was clicked since. The last two make the lists of their moment. None are wanted without the source.
        """
        if not self._config.group_source:
            return []
        cut, start = self._out / "validation", self._out / _AS_OF_THE_CUT
        logs, groups = self._out / _FITTED_ON, self._out / "groups"
        fitted = [logs, groups, cut / "interests"]
        configs = self._config.groups.model_dump(mode="json"), self._config.coevolution.model_dump(mode="json")
        cycles = {"cycles": self._config.increment_cycles}
        inputs = [logs, self._out / "logs", groups, start]
        return [
            Step("groups", [logs], configs[0], _GROUPS_CODE, self._group),
            Step(_AS_OF_THE_CUT, fitted, configs[1], COEVOLUTION_CODE, self._tune, resumable=True),
            Step(COEVOLUTION, inputs, cycles, COEVOLUTION_CODE, self._go_on),
        ]

    def groups_directory(self) -> Path | None:
        """Where the group model of this build lies; None if none is wanted, or none could be made."""
        return self._made("groups", GROUP_SPEC)

    def coevolution_directory(self, name: str = COEVOLUTION) -> Path | None:
        """Where LLMs and lists of this build lie; None if none are wanted, or none could be made."""
        return self._made(name, COEVOLUTION_SPEC)

    def _made(self, name: str, spec: str) -> Path | None:
        directory = self._out / name
        return directory if self._config.group_source and (directory / spec).is_file() else None

    def _group(self, context: StepContext) -> Numbers:
        """Logs in which no user has enough history make no group model."""
        logs, config, cache = self._out / _FITTED_ON, self._config.groups, self._cache / "completions"
        try:
            spec = build_groups(logs, context.directory, config, cache=cache, progress=context.progress)
        except GroupsError as error:
            return {"made": f"no: {error}"}
        return {"encoder": spec.group_model_id, "groups": spec.num_groups}

    def _tune(self, context: StepContext) -> Numbers:
        """Logs in which too few users have enough history make no LLMs."""
        groups = self.groups_directory()
        if groups is None:
            return _NOTHING
        taxonomy_hash = InterestsSummary.read(self._out / "validation" / "interests").taxonomy_hash
        logs, config = self._out / _FITTED_ON, self._config.coevolution
        try:
            spec = build_coevolution(
                logs,
                groups,
                context.directory,
                config,
                taxonomy_hash,
                stage=_stages(context.progress, config.pco.cycles),
                progress=context.progress,
            )
        except ShortLogsError as error:
            return {"made": f"no: {error}"}
        return describe_coevolution(spec, context.directory)

    def _go_on(self, context: StepContext) -> Numbers:
        start, groups = self.coevolution_directory(_AS_OF_THE_CUT), self.groups_directory()
        if start is None or groups is None:
            return _NOTHING
        logs, later = self._out / _FITTED_ON, self._out / "logs"
        cycles = self._config.increment_cycles
        stage = _stages(context.progress, cycles)
        spec = continue_coevolution(start, context.directory, logs, groups, cycles, later, stage=stage)
        return describe_coevolution(spec, context.directory)


def _stages(progress: Progress, cycles: int) -> Stage:
    """Show the stages of so many cycles as a bar."""
    task = progress.add_task("cycles", total=STAGES_OF_A_CYCLE * cycles + 1)

    def tell(cycle: int, name: str) -> None:
        progress.update(task, description=f"cycle {cycle}: {name}", advance=float(cycle > 0))

    return tell


def describe_coevolution(spec: records_pb2.CoevolutionSpec, directory: Path) -> Numbers:
    """Tell the key numbers of LLMs and lists."""
    return {
        "Novelty LLM": spec.novelty_model_name,
        "Relevance LLM": spec.relevance_model_name,
        "base": spec.base,
        "cycles": spec.generation,
        "threshold": spec.threshold,
        "lists": len(read_lists(directory)),
    }
