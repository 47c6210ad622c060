"""A trained Novelty LLM and Relevance LLM into a Triton deployment repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from serendipity.groups import model
from serendipity.groups.prompt import NOVELTY_INSTRUCTIONS, RELEVANCE_INSTRUCTIONS, answer
from serendipity.interests.prompt import STYLES
from serendipity.tools.deployment_repository import MODEL_REPOSITORY, PlacementError
from serendipity.tools.language_model_placement import (
    INSTRUCTIONS,
    LLM_AS_CHECKED_IN,
    SHARED,
    LanguageModelServing,
    expect_name,
    expect_positive,
    install_language_model,
    language_model_configuration,
    read_categories,
)
from serendipity.v1 import records_pb2

_GROUPS = MODEL_REPOSITORY.parent / "groups"
_DECODING = _GROUPS / "decoding.py"
_TRIE = _GROUPS / "category_trie.py"


def place_coevolution_llms(
    coevolution_dir: Path, models_dir: Path, serving: LanguageModelServing = LLM_AS_CHECKED_IN
) -> tuple[str, str]:
    """Place both LLMs below `models_dir` and return their names, novelty_llm_<…> and relevance_llm_<fingerprint>.

    coevolution_dir: a directory as `serendipity.groups.model` describes it. Readers of `models_dir` see whole models
    or none. Raises PlacementError.
    """
    spec = read_coevolution_spec(coevolution_dir)
    style = STYLES[STYLES.index(spec.prompt_style)]
    for kind, name in ((model.NOVELTY, spec.novelty_model_name), (model.RELEVANCE, spec.relevance_model_name)):
        categories = read_categories(coevolution_dir / kind / model.CATEGORIES)
        source = MODEL_REPOSITORY / f"{kind}_llm"
        is_novelty = kind == model.NOVELTY
        configuration = language_model_configuration(
            (source / "config.pbtxt").read_text(encoding="utf-8"),
            name,
            spec.max_batch,
            serving.instances,
            {**reported_by_llm(spec, kind), **serving.parameters},
        )
        modules = [*source.glob("1/*.py"), *SHARED, _DECODING]
        if is_novelty:
            modules.append(_TRIE)
            answers = [answer(category, style) for category in categories]
            texts = {INSTRUCTIONS: NOVELTY_INSTRUCTIONS, "answers.json": json.dumps(answers, ensure_ascii=False)}
        else:
            texts = {INSTRUCTIONS: RELEVANCE_INSTRUCTIONS}
        install_language_model(models_dir, name, configuration, modules, texts, coevolution_dir / kind)
    return spec.novelty_model_name, spec.relevance_model_name


def read_coevolution_spec(coevolution_dir: Path) -> records_pb2.CoevolutionSpec:
    """Read the spec of the two LLMs and check that they can be placed. Raises PlacementError."""
    path = coevolution_dir / model.COEVOLUTION_SPEC
    try:
        spec = model.read_coevolution_spec(coevolution_dir)
    except model.GroupModelError as error:
        raise PlacementError(str(error)) from error
    for field, prefix, fingerprint in (
        ("novelty_model_name", model.NOVELTY_PREFIX, spec.novelty_fingerprint),
        ("relevance_model_name", model.RELEVANCE_PREFIX, spec.relevance_fingerprint),
    ):
        expect_name(path, field, getattr(spec, field), prefix + fingerprint)
    if spec.prompt_style not in STYLES:
        raise PlacementError(f"{path}: prompt_style: found {spec.prompt_style!r}, expected one of {', '.join(STYLES)}")
    expect_positive(path, spec, ("num_candidates", "max_batch", "max_prompt_tokens"))
    return spec


def reported_by_llm(spec: records_pb2.CoevolutionSpec, kind: str) -> Mapping[str, str]:
    """Parameters that a placed LLM reports. kind: NOVELTY or RELEVANCE."""
    return {
        "fingerprint": spec.novelty_fingerprint if kind == model.NOVELTY else spec.relevance_fingerprint,
        "base": spec.base,
        "prompt_style": spec.prompt_style,
        "max_prompt_tokens": str(spec.max_prompt_tokens),
    }
