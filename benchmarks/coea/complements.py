"""Which categories go together, as a language model judges it, without having seen a click."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.category_trie import CategoryTrie
from serendipity.groups.decoding import CategoryDecoder
from serendipity.interests.text import clean_text
from serendipity.layout import hash_of, write_atomically
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.tokens import prompt_tokens

INSTRUCTIONS = "You know what people like to choose together. Answer with yes or no."

_ANSWERS = ("Yes", "No")

Pair = tuple[str, str]


def question(pair: Pair) -> str:
    """Ask whether the second category goes with the first."""
    one, other = map(clean_text, pair)
    return f"Somebody has just chosen {one}. Is {other} a good complement to it?"


def judge(base: BaseModel, pairs: Sequence[Pair], threads: int = 1) -> NDArray[np.float32]:
    """Compute log p(yes) − log p(no) for every pair: [n] float32.

    Compared, not answered: a small model says yes to nearly everything, and how surely tells more than that.
    """
    tokens = [list(base.tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in _ANSWERS]
    prompts = prompt_tokens(base.tokenizer, [question(pair) for pair in pairs], base.style, INSTRUCTIONS)
    with limited_threads(threads):
        decoder = CategoryDecoder(base.model.eval(), CategoryTrie(tokens, base.tokenizer.eos_token_id))
        answers = decoder.log_probabilities(prompts)
    odds: NDArray[np.float32] = answers[:, 0] - answers[:, 1]
    return odds


class Judgements:
    """Judgements of a model on disk, so that they are asked for once and not once a seed.

    model: what the answers depend on besides the question. A file a set of pairs; Raises ValueError for a damaged one.
    """

    def __init__(self, directory: Path, model: str) -> None:
        self._directory = directory
        self._model = model

    def read(self, pairs: Sequence[Pair]) -> NDArray[np.float32] | None:
        """Read the judgements of these pairs; None where they were not written yet."""
        path = self._path(pairs)
        if not path.is_file():
            return None
        try:
            odds = np.array(json.loads(path.read_text(encoding="utf-8")), np.float32)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); expected a list of numbers: delete it") from error
        if odds.shape != (len(pairs),):
            raise ValueError(f"{path}: found {odds.shape} numbers, expected {len(pairs)}: delete it")
        return odds

    def write(self, pairs: Sequence[Pair], odds: NDArray[np.float32]) -> None:
        """Write the judgements of these pairs."""
        path = self._path(pairs)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(odds.tolist()).encode())

    def _path(self, pairs: Sequence[Pair]) -> Path:
        asked = [self._model, INSTRUCTIONS, *_ANSWERS, *map(question, pairs)]
        return self._directory / f"{hash_of([text.encode() for text in asked])[:24]}.json"
