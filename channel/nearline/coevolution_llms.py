"""The Novelty and the Relevance LLM on Triton, asked near-line for the novel-category lists that are missing."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence

import numpy as np

from serendipity.channel.nearline.triton_models import Output, TritonModels
from serendipity.groups.model import COUNT, EXCLUDED, PROMPT, PROPOSALS, SCORE
from serendipity.v1 import records_pb2


class CoevolutionLlms(TritonModels):
    """Calls both LLMs. Of both calls all prompts are answered, in their order, or an error is raised."""

    async def propose(
        self,
        spec: records_pb2.CoevolutionSpec,
        prompts: Sequence[str],
        excluded: Sequence[Collection[str]],
        count: int,
        timeout: float,
    ) -> list[list[tuple[str, float]]]:
        """Ask the Novelty LLM for categories: (category, log-probability) of each prompt, most probable first.

        prompts: user messages (`prompt.novelty_prompt`). excluded: of each prompt the categories that must not be
        proposed. count: categories of each; fewer where the catalogue has no more. timeout: seconds for all prompts.
        """
        lists = [json.dumps(sorted(names), ensure_ascii=False) for names in excluded]
        inputs = {
            PROMPT: self.cells(prompts, "prompt"),
            EXCLUDED: self.cells(lists, "excluded"),
            COUNT: np.full((len(prompts), 1), count, np.int32),
        }
        name = spec.novelty_model_name
        (cells,) = await self.infer(name, inputs, spec.max_batch, {PROPOSALS: Output(np.object_)}, timeout)
        return [self._proposals(name, cell, count) for cell in cells[:, 0]]

    async def score(self, spec: records_pb2.CoevolutionSpec, prompts: Sequence[str], timeout: float) -> list[float]:
        """Ask the Relevance LLM how well candidates fit: f of each prompt, neither scaled nor offset.

        prompts: user messages with the candidate (`prompt.relevance_prompt`). timeout: seconds for all of them.
        """
        inputs = {PROMPT: self.cells(prompts, "prompt")}
        name = spec.relevance_model_name
        (scores,) = await self.infer(name, inputs, spec.max_batch, {SCORE: Output(np.float32)}, timeout)
        return [float(score) for score in scores[:, 0]]

    def _proposals(self, name: str, cell: bytes, count: int) -> list[tuple[str, float]]:
        try:
            rows = json.loads(cell)
        except ValueError:
            rows = None
        if not isinstance(rows, list) or len(rows) > count or not all(map(_is_proposal, rows)):
            expected = f"a JSON list of at most {count} [category, log-probability]"
            raise self.unreadable(name, PROPOSALS, repr(cell), expected)
        return [(category, float(value)) for category, value in rows]


def _is_proposal(row: object) -> bool:
    match row:
        case [str(), float() | int() as value]:
            return math.isfinite(value) and not isinstance(value, bool)
        case _:
            return False
