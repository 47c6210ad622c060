"""The build's steps that find latent interests, and that distil the model which refreshes them."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path

from rich.progress import Progress

from serendipity.interests.model import SPEC
from serendipity.interests.reasoner import Reasoner
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.distillation.builder import build_interest_gpt
from serendipity.offline.distillation.moments import LogsTooShortError
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
from serendipity.offline.steps import Numbers, Step
from serendipity.offline.workers import StepContext
from serendipity.v1 import records_pb2

LOGS_CODE = (
    "serendipity.offline.logs", "serendipity.offline.parquet", "serendipity.novelty", "serendipity.interests.text",
)  # fmt: skip
INTERESTS_CODE = (
    *LOGS_CODE, "serendipity.interests", "serendipity.offline.interests", "serendipity.offline.encoder",
    "serendipity.sentence_encoder",
)  # fmt: skip
_INTEREST_GPT_CODE = (*INTERESTS_CODE, "serendipity.offline.distillation")


class InterestSteps:
    """Makes the steps of one build.

    encoder_path: directory of the text encoder; cache: directory of what may be lost: vectors by text, and what
    language models answered, so that a killed build does not ask again.
    """

    def __init__(self, config: BuildConfig, out: Path, encoder_path: Path, cache: Path) -> None:
        self._config = config
        self._out = out
        self._encoder_path = encoder_path
        self._cache = cache

    def steps(self) -> list[Step]:
        """Reason about every user of the logs, and as of the cut; distil InterestGPT from the interests' reasoner."""
        made, logs = self._out / "interests", self._out / "logs"
        read_by_all = [self._encoder_path, *self._weights()]
        reasoning = {"k": self._config.interests_per_user, **self._config.interests.model_dump(mode="json")}
        distilling = {**self._config.interest_gpt.model_dump(mode="json"), "reasoner": reasoning["reasoner"]}
        models = ("serendipity.offline.language_models",) if self._by_model else ()
        code, gpt_code = (*INTERESTS_CODE, *models), (*_INTEREST_GPT_CODE, *models)
        of_the_cut = [self._out / "validation" / "logs", made, *read_by_all]
        steps = [
            Step("interests", [logs, *read_by_all], reasoning, code, self._reason),
            Step("validation/interests", of_the_cut, reasoning, code, self._reason_as_of_the_cut),
        ]
        if self._config.interest_gpt.enabled:
            inputs = [logs, made, *read_by_all]
            steps.append(Step("interest_gpt", inputs, distilling, gpt_code, self._distil, resumable=True))
        return steps

    def interest_gpt_directory(self) -> Path | None:
        """Where the InterestGPT of this build lies; None if none is wanted, or none could be trained."""
        directory = self._out / "interest_gpt"
        return directory if self._config.interest_gpt.enabled and (directory / SPEC).is_file() else None

    def _reason(self, context: StepContext) -> Numbers:
        return self._build(self._out / "logs", self._config.interests, context)

    def _reason_as_of_the_cut(self, context: StepContext) -> Numbers:
        # The threshold does not depend on time, and is that of the interests.
        threshold = InterestsSummary.read(self._out / "interests").grounding_threshold
        config = self._config.interests.model_copy(update={"grounding_threshold": threshold})
        return self._build(self._out / "validation" / "logs", config, context)

    def _build(self, logs: Path, config: InterestsConfig, context: StepContext) -> Numbers:
        nodes = context.previous / NODES if context.previous else None
        if nodes is not None and nodes.is_file():
            # Node ids and their vocabulary outlive builds: those of the last one are read from here and kept.
            shutil.copy2(nodes, context.directory)
        before = self._usage()
        built = build_interests(
            logs,
            context.directory,
            self.encoder,
            config,
            make_reasoner=self._make_reasoner(context.progress),
            k=self._config.interests_per_user,
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

    def _distil(self, context: StepContext) -> Numbers:
        """Logs that are too short for the data set make no InterestGPT."""
        try:
            spec = build_interest_gpt(
                self._out / "logs",
                self._out / "interests",
                context.directory,
                self._config.interest_gpt,
                encoder=self.encoder,
                teacher=self._teacher(context.progress),
                progress=context.progress,
            )
        except LogsTooShortError as error:
            return {"trained": f"no: {error}"}
        return {"model": spec.model_name, "base": spec.base, **worth(spec)}

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, opened when it is first needed."""
        return TextEncoder(self._encoder_path)

    @property
    def _by_model(self) -> LlmReasonerConfig | None:
        reasoner = self._config.interests.reasoner
        return None if reasoner == "taxonomy" else reasoner

    @cached_property
    def _models(self) -> list[AnsweringModel]:
        configs = self._by_model.models if self._by_model else ()
        return [open_language_model(config, self._cache / "completions") for config in configs]

    def _make_reasoner(self, progress: Progress) -> MakeReasoner | None:
        return llm_reasoner(self._by_model, self._models, self.encoder, progress) if self._by_model else None

    def _teacher(self, progress: Progress) -> Reasoner | None:
        make = self._make_reasoner(progress)
        if make is None:
            return None
        return make(Vocabulary.read(self._out / "interests"), Catalogue.read(self._out / "logs"))

    def _usage(self) -> Usage:
        return sum((model.usage for model in self._models), Usage())

    def _weights(self) -> list[Path]:
        return [model.path for model in self._by_model.models if model.kind == "local"] if self._by_model else []


def worth(spec: records_pb2.InterestGptSpec) -> Numbers:
    """Tell what an InterestGPT's likelihoods count, and what that is worth."""
    report = spec.report
    if spec.writes:
        return {"asked to": "write"}
    return {
        "asked to": "score",
        "weight": spec.likelihood_weight,
        "best weight": report.best_weight,
        "judged users": report.users,
        "recall@10 of never-clicked categories, reasoner": report.reasoner,
        "likelihood": report.likelihood,
        "both": report.mix,
        "±": report.margin,
        "popularity": report.popularity,
    }


def _describe(used: Usage) -> Numbers:
    return {
        "prompts": used.prompts,
        "of them known": used.cache_hits,
        "prompt tokens": used.prompt_tokens,
        "completion tokens": used.completion_tokens,
        "seconds of the models": used.seconds,
    }
