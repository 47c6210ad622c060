"""Everything a build can be told, in one model; read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from serendipity.interests.reasoner import MAX_INTERESTS
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.configuration import Configuration, as_toml, keys, laid_over
from serendipity.offline.distillation.config import HORIZONS, DistillationConfig
from serendipity.offline.errors import BuilderError
from serendipity.offline.graph.choice import GraphBuildConfig
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.interests.config import InterestsConfig
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.sufficiency import Wanted
from serendipity.offline.merge.config import MergeConfig
from serendipity.offline.snapshot.canary import CanaryConfig
from serendipity.offline.snapshot.gate import GateConfig
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.towers.config import CUT_STEP, TowersConfig


class BuildConfigError(BuilderError):
    """A build configuration cannot be read: names the file and every field that is wrong."""


class InterestGptConfig(DistillationConfig):
    """The model that refreshes interests near-line, distilled from the interests' reasoner."""

    enabled: bool = True
    """Whether one is made: without it a snapshot's interests serve until they are too old."""


class BuildConfig(Configuration):
    """A whole build. In TOML, nested models are tables: [logs], [towers.trainer], [gate] ….

    Fields that only change how a snapshot is judged (canary, gate) do not make anything be built again.
    """

    dataset: str = "complete-journey"
    """Name of a public data set, or a host's folder (or its URL) with events, items and users."""
    hold_out: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the clicks, the latest, that the build must not see, so that it can be evaluated on them."""
    text_encoder: Path | None = None
    """Directory of a transformers text encoder; none: the packaged MiniLM."""
    interests_per_user: Annotated[int, Field(ge=0, le=MAX_INTERESTS)] = MAX_INTERESTS
    """Latent interests stored per user at most."""
    interests: InterestsConfig = InterestsConfig()
    """Who finds users' latent interests, and what they ground in."""
    logs: LogsConfig = LogsConfig()
    """Reading of the host's logs. A novelty level that is not given is the data set's own; `until` makes the build as
    of a moment."""
    interest_gpt: InterestGptConfig = InterestGptConfig()
    """The model that refreshes interests near-line."""
    group_source: bool = True
    """Whether users are grouped and novel-category lists made: without them a snapshot has no group source."""
    groups: GroupsConfig = GroupsConfig()
    """Groups of users with alike long-term interests."""
    graph_source: bool = True
    """Whether a graph of users, items, knowledge and held interests is made: without it there is no graph source."""
    graph: GraphBuildConfig = GraphBuildConfig()
    """The graph and its vectors."""
    coevolution: CoevolutionConfig = CoevolutionConfig()
    """The Novelty and the Relevance LLM, and how they correct each other."""
    increment_cycles: Annotated[int, Field(ge=1)] = 1
    """Cycles of theirs on what was clicked after the moment that the merge model is learned from."""
    towers: TowersConfig = TowersConfig()
    """The towers and their training."""
    index: IndexConfig = IndexConfig()
    """The index for open search."""
    merge: MergeConfig = MergeConfig()
    """How candidates of all sources become one list, and the replay that it is learned on."""
    canary: CanaryConfig = CanaryConfig()
    """Users asked of a new snapshot before it is published."""
    gate: GateConfig = GateConfig()
    """Bounds of the quality gate."""

    @property
    def wanted_of_logs(self) -> Wanted:
        """What the logs must hold for the build to come to something that the gate lets pass."""
        rows = self.towers.rows
        earliest = 1 - 2 * rows.label_window - CUT_STEP * (rows.num_cuts - 1)
        return Wanted(
            asked=self.canary.count,
            fill=self.gate.min_fill,
            empty=self.gate.max_empty,
            item_users=rows.min_item_users,
            learned=(max(0.0, earliest), 1 - rows.label_window),
            history=self.groups.sequence.min_clicks,
            groups=self.groups.num_groups,
            positives=self.merge.min_positives,
            days=HORIZONS * self.interest_gpt.dataset.horizon_days,
        )


def load_build_config(path: Path | None, given: Mapping[str, Any] | None = None) -> BuildConfig:
    """Read a TOML file (none: the defaults) with `given` laid over it, table by table.

    Raises BuildConfigError naming the file, every wrong field, what was found and what was expected.
    """
    content: dict[str, Any] = {}
    if path is not None:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BuildConfigError(f"{path}: cannot be read ({error}); expected TOML") from error
    try:
        return BuildConfig.model_validate(laid_over(content, given or {}))
    except ValidationError as error:
        source = path or "build configuration"
        raise BuildConfigError(f"{source}:\n  " + "\n  ".join(map(_told, error.errors()))) from error


def write_build_config(path: Path) -> None:
    """Write every key of a build's configuration with its meaning and default, to be edited.

    Raises BuildConfigError where there is a file already, or none can be made.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(as_toml(BuildConfig, "A build: every key with what it means and its default."))
    except OSError as error:
        raise BuildConfigError(f"{path}: cannot be written ({error.strerror}); expected a new file's name") from error


def _told(error: ErrorDetails) -> str:
    path = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{path}: found {error.get('input')!r}: {error['msg']}"
    name = path.rpartition(".")[2]
    paths = {key.path for key in keys(BuildConfig)}
    paths |= {known.rpartition(".")[0] for known in paths}
    close = get_close_matches(name, {known.rpartition(".")[2] for known in paths}, 1, 0.75)
    alike = [known for known in sorted(paths) if known.rpartition(".")[2] in close]
    likely = sorted(alike, key=lambda known: -SequenceMatcher(None, known, path).ratio())[:2]
    expected = f"do you mean {' or '.join(likely)}?" if likely else "`serendip build --write-config FILE` lists them"
    return f"{path}: found {error.get('input')!r}, but there is no such key; {expected}"
