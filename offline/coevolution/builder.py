"""Logs and groups → the two LLMs and the novel-category lists; and the run that goes on from them.

<out>/  novelty/ relevance/     the LLMs after the last cycle (serendipity.groups.model)
        lists.parquet           offline.coevolution.lists
        configuration.json      CoevolutionConfig
        coevolution.json        CoevolutionSpec; written last
        .checkpoints/           of a killed run: what its tunings go on from
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.progress import Progress

from serendipity.groups.model import (
    COEVOLUTION_SPEC,
    NOVELTY,
    NOVELTY_PREFIX,
    RELEVANCE,
    RELEVANCE_PREFIX,
    llm_fingerprint,
    read_coevolution_spec,
)
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.layout import write_atomically
from serendipity.offline.coevolution.coevolution import Coevolution, normalise_scores, tune_llms, validation_pairs
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.cycle import Llms, Stage
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.lists import choose_lists, make_lists, write_lists
from serendipity.offline.coevolution.loop import Loop
from serendipity.offline.coevolution.numbering import numbered_as, numbers_by_name
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.errors import BuilderError
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2

CONFIGURATION = "configuration.json"
_CHECKPOINTS = ".checkpoints"

_MAX_BATCH = 64
"""Prompts in one call of the Triton models at most."""

_MAX_PROMPT_TOKENS = {"compact": 256, "chat": 1_024}


class CoevolutionError(BuilderError):
    """The LLMs of a build cannot be continued: names the file, what was found and what was expected."""


class ShortLogsError(CoevolutionError):
    """The users that nothing is trained on have clicked too little to tell what scores are worth."""


def build_coevolution(
    logs: Path,
    groups: Path,
    out: Path,
    config: CoevolutionConfig,
    taxonomy_hash: str,
    *,
    stage: Stage = lambda _cycle, _name: None,
    progress: Progress | None = None,
) -> records_pb2.CoevolutionSpec:
    """Tune both LLMs, run the configured cycles, make the lists, and write the directory.

    taxonomy_hash: of the build's interests. A killed tuning goes on from its last checkpoint below `out`; cycles begin
    anew. Raises LogsError, GroupModelError, and ShortLogsError when there is too little to learn from.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    exposures = Exposures.read(logs, len(histories), catalogue)
    model = GroupModel.read(groups)
    click_groups = model.click_groups(histories)
    renderer = Renderer(model.profiles, catalogue.categories, config.style)
    held_out = validation_pairs(histories, click_groups, len(catalogue.categories), config, exposures)
    if not held_out:
        raise ShortLogsError(
            f"{logs}: found no click of a validation user outside the latest categories, expected some: the logs are "
            f"too short, or examples.validation_share = {config.examples.validation_share} is of too few users"
        )
    stage(0, "tuning")
    llms = tune_llms(
        histories,
        click_groups,
        renderer,
        held_out,
        config,
        exposures=exposures,
        checkpoints=out / _CHECKPOINTS,
        progress=progress,
    ).llms
    loop = Loop(InteractionRecords.of(histories, click_groups, config.examples), renderer, config, exposures)
    found = loop.run(llms, config.pco.cycles, stage=stage)
    result = normalise_scores(found, renderer, held_out, config, config.pco.cycles)
    stage(result.generation, "lists")
    spec = _write(out, result, histories, model, config, taxonomy_hash)
    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    return spec


def continue_coevolution(
    built: Path,
    out: Path,
    logs: Path,
    groups: Path,
    cycles: int,
    later: Path | None = None,
    *,
    stage: Stage = lambda _cycle, _name: None,
) -> records_pb2.CoevolutionSpec:
    """Run more cycles from the LLMs of a build, with what came in since, and write another directory.

    built: as build_coevolution wrote it; it stays as it is. out: the new directory. logs, groups: those that `built` is
    of. later: logs of all events so far, which are learned from; by default `logs`. Raises CoevolutionError when
    the group model is another one or `later` begins behind `logs`, LogsError, GroupModelError.
    """
    spec = read_coevolution_spec(built)
    config = _read_configuration(built / CONFIGURATION)
    model = GroupModel.read(groups)
    if spec.group_model_id != model.spec.group_model_id:
        raise CoevolutionError(
            f"{built / COEVOLUTION_SPEC}: group_model_id: found {spec.group_model_id!r}, expected "
            f"{model.spec.group_model_id!r} of {groups}; build the LLMs anew"
        )
    catalogue, until = Catalogue.read(logs), LogsSummary.read(logs_directory(logs)).events_until
    since, theirs = Histories.read(later or logs), Catalogue.read(later or logs)
    if int(since.times.min(initial=until)) >= until:
        raise CoevolutionError(
            f"{later}: found no click from before {until}, where the logs of the LLMs end; expected all events so far"
        )
    histories = numbered_as(since, theirs, catalogue, until)
    exposures = Exposures.read(later or logs, len(since), theirs)
    exposures = replace(exposures, categories=numbers_by_name(theirs, catalogue)[exposures.categories])
    click_groups = model.click_groups(histories)
    renderer = Renderer(model.profiles, catalogue.categories, config.style)
    held_out = validation_pairs(histories, click_groups, len(catalogue.categories), config, exposures)
    start = Llms.read(built, config, spec.base)
    records = InteractionRecords.of(histories, click_groups, config.examples)
    loop = Loop(records, renderer, config, exposures, spec.generation)
    found = loop.run(start, cycles, stage=stage)
    result = normalise_scores(found, renderer, held_out, config, spec.generation + cycles)
    stage(result.generation, "lists")
    # The snapshot's user table is that of the build's logs: until the next build users are asked for by that group.
    before = Histories.read(logs)
    groups_before = dict(zip(before.user_ids, model.assign(before).group_id.tolist(), strict=True))
    served = np.array([groups_before.get(user_id, DEFAULT_GROUP) for user_id in histories.user_ids], np.int32)
    return _write(out, result, histories, model, config, spec.taxonomy_hash, base=spec.base, served=served)


def _write(
    out: Path,
    result: Coevolution,
    histories: Histories,
    model: GroupModel,
    config: CoevolutionConfig,
    taxonomy_hash: str,
    *,
    base: str | None = None,
    served: NDArray[np.int32] | None = None,
) -> records_pb2.CoevolutionSpec:
    out.mkdir(parents=True, exist_ok=True)
    result.llms.save(out)
    model_id = model.spec.group_model_id
    group_ids = model.assign(histories).group_id
    told = choose_lists(histories, group_ids, model.spec.num_groups, config.pco.common_categories, served)
    write_lists(out, make_lists(result, model_id, told))
    write_atomically(out / CONFIGURATION, config.model_dump_json(indent=2).encode())
    novelty, relevance = llm_fingerprint(out / NOVELTY), llm_fingerprint(out / RELEVANCE)
    positions = min(result.novelty.base.max_positions, result.relevance.base.max_positions)
    answers = max(map(len, result.novelty.answers), default=0) + 1
    spec = records_pb2.CoevolutionSpec(
        novelty_model_name=NOVELTY_PREFIX + novelty,
        novelty_fingerprint=novelty,
        relevance_model_name=RELEVANCE_PREFIX + relevance,
        relevance_fingerprint=relevance,
        base=base or result.novelty.base.name,
        prompt_style=result.novelty.base.style,
        group_model_id=model_id,
        taxonomy_hash=taxonomy_hash,
        num_candidates=config.num_candidates,
        threshold=result.threshold,
        score_scale=result.scale,
        score_offset=result.offset,
        generation=result.generation,
        max_batch=_MAX_BATCH,
        max_prompt_tokens=min(positions - answers, _MAX_PROMPT_TOKENS[result.novelty.base.style]),
    )
    text = json_format.MessageToJson(spec, preserving_proto_field_name=True, sort_keys=True)
    write_atomically(out / COEVOLUTION_SPEC, text.encode())
    return spec


def _read_configuration(path: Path) -> CoevolutionConfig:
    try:
        # What is no longer a field was never anything but its default, which is a constant now.
        return CoevolutionConfig.model_validate_json(path.read_bytes(), extra="ignore")
    except (OSError, ValidationError) as error:
        raise CoevolutionError(f"{path}: cannot be read ({error}); expected the configuration of a build") from error
