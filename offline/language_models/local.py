"""A causal language model that runs here, through transformers: on the GPUs if there are any, else on the CPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from serendipity.offline.language_models.answering_model import AnsweringModel
from serendipity.offline.language_models.completion_cache import CompletionCache
from serendipity.offline.language_models.config import LocalConfig
from serendipity.offline.language_models.language_model import (
    Completion,
    LanguageModelError,
    Prompt,
    Sampling,
    split_reasoning,
)
from serendipity.offline.progress import no_progress_bars
from serendipity.offline.towers.threads import limited_threads

_IDENTIFYING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files besides the weights that an answer depends on."""


class LocalModel(AnsweringModel):
    """Answers with a causal language model and its tokenizer, batch by batch, shortest prompts first.

    Prompts go through the tokenizer's chat template where it has one; otherwise system and user message follow each
    other. Greedy answers are the same whatever else is asked (up to rounding, which padding changes); a sampled one
    depends on the seed and on the batch it is in.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], tuple[Any, Any]],
        cache: CompletionCache | None = None,
        *,
        batch_size: int = 32,
        threads: int = 1,
    ) -> None:
        """load: returns model and tokenizer, called once, at the first prompt. The rest as in LocalConfig."""
        super().__init__(name, cache)
        self._load = load
        self._batch_size = batch_size
        self._threads = threads

    @classmethod
    def open(cls, config: LocalConfig, cache: CompletionCache | None = None) -> Self:
        """Take a directory as `save_pretrained` writes it; the weights are loaded at the first prompt.

        Nothing is downloaded. Raises LanguageModelError when there is no model in the directory.
        """
        name = f"{_model_type(config.path)}-{_fingerprint(config.path)}"
        return cls(name, lambda: _loaded(config), cache, batch_size=config.batch_size, threads=config.threads)

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        texts = [self._text(prompt) for prompt in prompts]
        tokens: list[list[int]] = self._tokenizer(texts, add_special_tokens=not self._has_template)["input_ids"]
        self._check_lengths(tokens, sampling)
        order = sorted(range(len(prompts)), key=lambda place: len(tokens[place]))
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            written = self._generate([tokens[i] for i in places], sampling)
            yield {place: self._completion(ids, len(tokens[place])) for place, ids in zip(places, written, strict=True)}

    def _generate(self, tokens: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
        from transformers import GenerationConfig

        device = self._model.device
        length = max(map(len, tokens))
        # Padded on the left: what is generated follows the prompt's last token at once.
        ids = torch.tensor([[self._pad] * (length - len(row)) + list(row) for row in tokens], device=device)
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in tokens], device=device)
        sampled = {"temperature": sampling.temperature, "top_k": 0} if sampling.temperature else {}
        # What a model's own configuration says of sampling, penalties and lengths must not mix with what is asked for.
        own, self._model.generation_config = (
            self._model.generation_config,
            GenerationConfig(
                do_sample=bool(sampled),
                **sampled,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=self._eos,
                pad_token_id=self._pad,
            ),
        )
        try:
            with limited_threads(self._threads), torch.inference_mode(), torch.random.fork_rng():
                torch.manual_seed(sampling.seed)
                written = self._model.generate(input_ids=ids, attention_mask=mask)
        except torch.cuda.OutOfMemoryError as error:
            raise LanguageModelError(
                f"{self.name}: {len(tokens)} prompts of up to {length} tokens do not fit into the GPU's memory; "
                "expected a smaller batch_size"
            ) from error
        finally:
            self._model.generation_config = own
        rows: list[list[int]] = written[:, length:].tolist()
        return rows

    def _completion(self, ids: list[int], prompt_tokens: int) -> Completion:
        end = next((at for at, token in enumerate(ids) if token in self._eos), None)
        written = ids if end is None else ids[:end]
        decoded = self._tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        reasoning, text = split_reasoning(decoded)
        num_tokens = len(ids) if end is None else end + 1
        return Completion(text, prompt_tokens, num_tokens, end is not None, reasoning)

    def _text(self, prompt: Prompt) -> str:
        if not self._has_template:
            return f"{prompt.system}\n\n{prompt.user}" if prompt.system else prompt.user
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        text: str = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def _check_lengths(self, tokens: Sequence[Sequence[int]], sampling: Sampling) -> None:
        positions = getattr(self._model.config, "max_position_embeddings", None)
        for place, row in enumerate(tokens):
            if not row:
                raise LanguageModelError(f"{self.name}: prompt {place}: found no tokens, expected at least one")
            if positions is not None and len(row) + sampling.max_new_tokens > positions:
                raise LanguageModelError(
                    f"{self.name}: prompt {place}: found {len(row):,} tokens, expected at most "
                    f"{positions - sampling.max_new_tokens:,} beside {sampling.max_new_tokens:,} new ones"
                )

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return self._load()

    @property
    def _model(self) -> Any:
        return self._loaded[0]

    @property
    def _tokenizer(self) -> Any:
        return self._loaded[1]

    @cached_property
    def _has_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    @cached_property
    def _eos(self) -> list[int]:
        configured = self._model.generation_config.eos_token_id
        tokens = configured if isinstance(configured, list) else [configured]
        # Chat models end a turn with the tokenizer's end token even where the base model's configuration names another.
        known = {token for token in (*tokens, self._tokenizer.eos_token_id) if token is not None}
        if not known:
            raise LanguageModelError(f"{self.name}: eos_token_id: found none, expected the token that ends an answer")
        return sorted(known)

    @cached_property
    def _pad(self) -> int:
        pad = self._tokenizer.pad_token_id
        return self._eos[0] if pad is None else int(pad)


def _loaded(config: LocalConfig) -> tuple[Any, Any]:
    # Imported here: it takes seconds, and a run whose answers are all cached needs none of it.
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = config.path
    on_gpu = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    # On a CPU bfloat16 is slower.
    dtype = ("bfloat16" if on_gpu else "float32") if config.dtype == "auto" else config.dtype
    try:
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, dtype=getattr(torch, dtype), device_map="auto" if on_gpu else None
            )
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise LanguageModelError(f"{directory}: not a language model that transformers can load ({error})") from error
    return model.eval(), tokenizer


def _model_type(directory: Path) -> str:
    path = directory / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LanguageModelError(
            f"{path}: cannot be read ({error!r}); expected the configuration of a transformers model"
        ) from error


def _fingerprint(directory: Path) -> str:
    """First 12 hex digits of the SHA-256 over weights, configuration and tokenizer."""
    weights = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))
    if not weights:
        raise LanguageModelError(f"{directory}: holds no *.safetensors and no pytorch_model*.bin; expected weights")
    digest = hashlib.sha256()
    for path in (*weights, *(directory / name for name in _IDENTIFYING)):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
