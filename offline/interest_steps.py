"""The build's steps that find latent interests, and that distil the model which refreshes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from serendipity.interests.model import SPEC
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.distillation.builder import build_interest_gpt
from serendipity.offline.distillation.moments import LogsTooShortError
from serendipity.offline.distillation.teacher import Teacher, TimelessTeacher
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.builder import MakeReasoner, build_interests, llm_reasoner
from serendipity.offline.interests.config import InterestsConfig, LlmReasonerConfig
from serendipity.offline.interests.node_table import NODES
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.language_models.answering_model import AnsweringModel
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import Usage
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.steps import Numbers, Step, StepContext

LOGS_CODE = ("serendipity.offline.logs", "serendipity.novelty")
INTERESTS_CODE = (
    *LOGS_CODE, "serendipity.interests", "serendipity.offline.interests", "serendipity.offline.encoder",
)  # fmt: skip
_INTEREST_GPT_CODE = (*INTERESTS_CODE, "serendipity.offline.distillation")


class InterestSteps:
    """Makes the steps of one build.

    encoder_path: directory of the text encoder; open_encoder: opens it, once; cache: directory of what may be lost:
    vectors by text, and what language models answered, so that a killed build does not ask again.
    """

    def __init__(
        self, config: BuildConfig, out: Path, encoder_path: Path, open_encoder: Callable[[], TextEncoder], cache: Path
    ) -> None:
        self._config = config
        self._out = out
        self._encoder_path = encoder_path
        self._open_encoder = open_encoder
        self._cache = cache

    def interests(self) -> Step:
        """Reason about every user of the logs."""
        return self._reasoning("interests", "logs", self._config.interests)

    def validation_interests(self) -> Step:
        """Reason as of the cut; the threshold does not depend on time, and is that of the interests."""
        threshold = InterestsSummary.read(self._out / "interests").grounding_threshold
        config = self._config.interests.model_copy(update={"grounding_threshold": threshold})
        return self._reasoning("validation/interests", "validation/logs", config)

    def interest_gpt(self) -> Step:
        """Distil the interests' reasoner into InterestGPT; logs that are too short for its data set make none."""
        logs, interests = self._out / "logs", self._out / "interests"
        config = self._config.interest_gpt

        def run(context: StepContext) -> Numbers:
            encoder = self._open_encoder()
            try:
                spec = build_interest_gpt(
                    logs,
                    interests,
                    context.directory,
                    config,
                    encoder=encoder,
                    teacher=self._teacher(encoder, interests, logs),
                    progress=context.progress,
                )
            except LogsTooShortError as error:
                return {"trained": f"no: {error}"}
            return {"model": spec.model_name, "base": spec.base, "tokens of an answer": spec.max_new_tokens}

        inputs = [logs, interests, self._encoder_path, *self._weights()]
        code = (*_INTEREST_GPT_CODE, *self._language_model_code())
        configuration = {
            **config.model_dump(mode="json"),
            "reasoner": self._config.interests.model_dump(mode="json")["reasoner"],
        }
        return Step("interest_gpt", inputs, configuration, code, run, resumable=True)

    def interest_gpt_directory(self) -> Path | None:
        """Where the InterestGPT of this build lies; None if none is wanted, or none could be trained."""
        directory = self._out / "interest_gpt"
        return directory if self._config.interest_gpt.enabled and (directory / SPEC).is_file() else None

    def _reasoning(self, name: str, of_logs: str, config: InterestsConfig) -> Step:
        logs = self._out / of_logs
        k = self._config.interests_per_user

        def run(context: StepContext) -> Numbers:
            nodes = context.previous / NODES if context.previous else None
            if nodes is not None and nodes.is_file():
                # Node ids and their vocabulary outlive builds: those of the last one are read from here and kept.
                shutil.copy2(nodes, context.directory)
            encoder = self._open_encoder()
            before = self._usage()
            built = build_interests(
                logs,
                context.directory,
                encoder,
                config,
                make_reasoner=self._make_reasoner(encoder),
                k=k,
                cache=self._cache / "text_vectors.npz",
            )
            return {
                "users": built.num_users,
                "interests": built.num_interests,
                "nodes": built.num_nodes,
                "of them reasoners'": built.num_reasoner_nodes,
                "grounding threshold": built.grounding_threshold,
                **(_describe(self._usage() - before) if self._models else {}),
            }

        code = (*INTERESTS_CODE, *self._language_model_code())
        configuration = {"k": k, **config.model_dump(mode="json")}
        return Step(name, [logs, self._encoder_path, *self._weights()], configuration, code, run)

    @property
    def _by_model(self) -> LlmReasonerConfig | None:
        reasoner = self._config.interests.reasoner
        return None if reasoner == "taxonomy" else reasoner

    @cached_property
    def _models(self) -> list[AnsweringModel]:
        configs = self._by_model.models if self._by_model else ()
        return [open_language_model(config, self._cache / "completions") for config in configs]

    def _make_reasoner(self, encoder: TextEncoder) -> MakeReasoner | None:
        return llm_reasoner(self._by_model, self._models, encoder) if self._by_model else None

    def _teacher(self, encoder: TextEncoder, interests: Path, logs: Path) -> Teacher | None:
        make = self._make_reasoner(encoder)
        return TimelessTeacher(make(Vocabulary.read(interests), Catalogue.read(logs))) if make else None

    def _usage(self) -> Usage:
        return sum((model.usage for model in self._models), Usage())

    def _weights(self) -> list[Path]:
        return [model.path for model in self._by_model.models if model.kind == "local"] if self._by_model else []

    def _language_model_code(self) -> tuple[str, ...]:
        return ("serendipity.offline.language_models",) if self._by_model else ()


def _describe(used: Usage) -> Numbers:
    return {
        "prompts": used.prompts,
        "of them known": used.cache_hits,
        "prompt tokens": used.prompt_tokens,
        "completion tokens": used.completion_tokens,
        "seconds of the models": used.seconds,
    }
