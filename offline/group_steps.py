"""The build's steps that group users, and that tune the two LLMs which find what is novel to a group.

Groups and LLMs are fitted as of the cut where the towers' first training ends, so that the lists which scores are
calibrated on come from models that have not seen the time they are judged by. What was clicked after the cut is the
increment of the closed loop's next cycles, just as `serendip coevolve` runs them day by day.
"""

from __future__ import annotations

from pathlib import Path

from serendipity.groups.model import COEVOLUTION_SPEC, GROUP_SPEC
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.coevolution.builder import (
    ShortLogsError,
    build_coevolution,
    continue_coevolution,
    forget_work,
)
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.groups.builder import build_groups
from serendipity.offline.groups.group_model import GroupsError
from serendipity.offline.interest_steps import INTERESTS_CODE
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.steps import Numbers, Step, StepContext
from serendipity.v1 import records_pb2

_GROUPS_CODE = (*INTERESTS_CODE, "serendipity.groups", "serendipity.keys", "serendipity.offline.groups")
COEVOLUTION_CODE = (*_GROUPS_CODE, "serendipity.offline.coevolution", "serendipity.offline.tuning")

COEVOLUTION = "coevolution"
_AS_OF_THE_CUT = "validation/coevolution"
"""Step and directory of the LLMs and lists that a snapshot is made of."""

_FITTED_ON = "validation/logs"


class GroupSteps:
    """Makes the steps of one build. out: the build directory; cache: directory of what may be lost: what language
    models answered."""

    def __init__(self, config: BuildConfig, out: Path, cache: Path) -> None:
        self._config = config
        self._out = out
        self._cache = cache

    def groups(self) -> Step:
        """Group the users as of the cut; logs in which no user has enough history make no group model."""
        logs = self._out / _FITTED_ON
        config = self._config.groups

        def run(context: StepContext) -> Numbers:
            try:
                spec = build_groups(
                    logs, context.directory, config, cache=self._cache / "completions", progress=context.progress
                )
            except GroupsError as error:
                return {"made": f"no: {error}"}
            return {"encoder": spec.model_name, "groups": spec.num_groups}

        return Step("groups", [logs], config.model_dump(mode="json"), _GROUPS_CODE, run)

    def groups_directory(self) -> Path | None:
        """Where the group model of this build lies; None if none is wanted, or none could be made."""
        return self._made("groups", GROUP_SPEC)

    def validation_coevolution(self) -> Step | None:
        """Tune both LLMs as of the cut, let them correct each other, and make the lists of that moment; logs in which
        too few users have enough history make none. None without groups."""
        if not self.groups_directory():
            return None
        logs, groups = self._out / _FITTED_ON, self._out / "groups"
        config = self._config.coevolution

        def run(context: StepContext) -> Numbers:
            try:
                spec = build_coevolution(
                    logs, groups, context.directory, config, self._taxonomy_hash("validation/interests")
                )
            except ShortLogsError as error:
                return {"made": f"no: {error}"}
            forget_work(context.directory)
            return describe_coevolution(spec, context.directory)

        inputs = [logs, groups, self._out / "validation" / "interests"]
        return Step(_AS_OF_THE_CUT, inputs, config.model_dump(mode="json"), COEVOLUTION_CODE, run, resumable=True)

    def coevolution(self) -> Step | None:
        """Go on from there with what was clicked since, and make the lists of the end of the logs; None without
        LLMs."""
        if not self.coevolution_directory(_AS_OF_THE_CUT):
            return None
        before, logs, groups = self._out / _FITTED_ON, self._out / "logs", self._out / "groups"
        start = self._out / _AS_OF_THE_CUT

        def run(context: StepContext) -> Numbers:
            spec = continue_coevolution(start, context.directory, before, groups, self._config.increment_cycles, logs)
            forget_work(context.directory)
            return describe_coevolution(spec, context.directory)

        configuration = {"cycles": self._config.increment_cycles}
        inputs = [before, logs, groups, start]
        return Step(COEVOLUTION, inputs, configuration, COEVOLUTION_CODE, run, resumable=True)

    def coevolution_directory(self, name: str = COEVOLUTION) -> Path | None:
        """Where LLMs and lists of this build lie; None if none are wanted, or none could be made."""
        # Without groups, or LLMs as of the cut, none are made, and what lies there is of an earlier build.
        made = [self.groups_directory(), *(self._made(each, COEVOLUTION_SPEC) for each in (_AS_OF_THE_CUT, name))]
        return made[-1] if all(made) else None

    def _made(self, name: str, spec: str) -> Path | None:
        directory = self._out / name
        return directory if self._config.group_source and (directory / spec).is_file() else None

    def _taxonomy_hash(self, interests: str) -> str:
        return InterestsSummary.read(self._out / interests).taxonomy_hash


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
