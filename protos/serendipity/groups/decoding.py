"""Constrained decoding of categories, and scores of texts, by a forward pass over a tree of tokens.

Prompts begin alike: those of a group share its profile, candidates of one list share all but the last words. So
prompts are packed into one sequence in which every shared beginning stands once, each token at the position it has in
its prompt and seeing only its own beginning (a tree mask, as in SpecInfer, arXiv 2305.09781). The answers of the
trie are grown onto the same tree level by level, the keys and values so far kept.

Stands alone: it needs torch and transformers, and nothing of this package, so that Triton's Python, where serendipity
is not installed, can load a copy of this file placed beside a model.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from serendipity.groups.category_trie import CategoryTrie

CPU_NODES, GPU_NODES = 256, 4_096
"""Tokens of one packed tree: attention costs their square, calls cost time of their own."""

LEAST_LOG_PROBABILITY = np.float32(-100.0)
"""Stands for that of a category that cannot be answered, where a finite number is needed."""

WIDTH = 32
"""Unfinished answers of a prompt that are extended at each level: beams. Where a catalogue's names are one token
each, or it has few of them, none is ever left out."""


@dataclass(frozen=True)
class TokenTree:
    """Sequences whose shared beginnings stand once. tokens, depths: [N]; parents: [N], -1 without; ends: the place of
    each sequence's last token."""

    tokens: list[int]
    depths: list[int]
    parents: list[int]
    ends: list[int]


def packed(sequences: Sequence[Sequence[int]], most: int) -> Iterator[tuple[list[int], TokenTree]]:
    """Pack sequences into trees of at most `most` tokens (a longer sequence alone makes one).

    Yields, for each tree, the places of its sequences and the tree. Raises ValueError for an empty sequence.
    """
    tree, places = TokenTree([], [], [], []), list[int]()
    path: list[int] = []
    previous: tuple[int, ...] = ()
    rows = [tuple(tokens) for tokens in sequences]
    for place in sorted(range(len(rows)), key=rows.__getitem__):
        tokens = rows[place]
        if not tokens:
            raise ValueError(f"sequence {place}: found no tokens, expected at least one")
        shared = _shared(previous, tokens)
        if places and len(tree.tokens) + len(tokens) - shared > most:
            yield places, tree
            tree, places, path, shared = TokenTree([], [], [], []), [], [], 0
        del path[shared:]
        for depth in range(shared, len(tokens)):
            tree.tokens.append(tokens[depth])
            tree.depths.append(depth)
            tree.parents.append(path[-1] if path else -1)
            path.append(len(tree.tokens) - 1)
        tree.ends.append(path[-1])
        places.append(place)
        previous = tokens
    if places:
        yield places, tree


class TextScorer:
    """Gives texts the number that a model with a reward head gives them."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._most = GPU_NODES if model.device.type == "cuda" else CPU_NODES

    @torch.inference_mode()
    def score(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Score texts as tokens; returns [n] float32. The number is read at each text's last token."""
        scores = np.empty(len(texts), np.float32)
        backbone = getattr(self._model, self._model.base_model_prefix)
        for places, tree in packed(texts, self._most):
            states = _Forward(backbone).extend(tree.tokens, tree.depths, tree.parents).last_hidden_state[0]
            scores[places] = self._model.score(states[tree.ends]).squeeze(-1).float().cpu().numpy()
        return scores


class CategoryDecoder:
    """Ranks the categories of a trie by the probability that a causal language model answers them.

    A category's probability is the product, over the tokens of its answer, of the token's probability among those that
    the trie allows there; over all categories it sums to 1. width: unfinished answers of a prompt that are gone on
    with at each level.
    """

    def __init__(self, model: Any, trie: CategoryTrie, *, width: int = WIDTH) -> None:
        self._model = model
        self._trie = trie
        self._width = width
        self._most = GPU_NODES if model.device.type == "cuda" else CPU_NODES
        self._tokens = [torch.tensor(node.tokens, device=model.device) for node in trie.nodes]
        self._below = trie.below()

    def log_probabilities(
        self, prompts: Sequence[Sequence[int]], wanted: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Compute them, exactly: [n, categories] float32, −inf for what cannot be answered.

        wanted: [n, categories], those that are needed of each prompt, which saves time where names are several tokens
        each; what comes out of others is not meant to be looked at.
        """
        found = np.empty((len(prompts), self._trie.num_categories), np.float32)
        for places, values in self._decoded(prompts, None, wanted):
            found[places] = values
        return found

    def best(
        self, prompts: Sequence[Sequence[int]], count: int, excluded: Sequence[Collection[int]] | None = None
    ) -> list[list[tuple[int, float]]]:
        """Find the `count` most probable categories of each prompt, as (category, log-probability), best first.

        excluded: for each prompt, categories that never come out; the others' probabilities do not change for it.
        Ties: the smaller number first. Fewer come out where the catalogue has no more.
        """
        barred = np.zeros((len(prompts), self._trie.num_categories), np.bool_)
        for row, categories in enumerate(excluded or ()):
            barred[row, list(categories)] = True
        answers: list[list[tuple[int, float]]] = [[] for _ in prompts]
        for places, values in self._decoded(prompts, count, ~barred):
            values[barred[places]] = -np.inf
            order = np.argsort(-values, axis=1, kind="stable")[:, :count]
            sorted_values = np.take_along_axis(values, order, axis=1)
            for place, categories, row in zip(places, order.tolist(), sorted_values.tolist(), strict=True):
                pairs = zip(categories, row, strict=True)
                answers[place] = [(category, value) for category, value in pairs if value > -np.inf]
        return answers

    @torch.inference_mode()
    def _decoded(
        self, prompts: Sequence[Sequence[int]], count: int | None, wanted: NDArray[np.bool_] | None
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield places of prompts and their [n, categories] log-probabilities; count: none for all of them."""
        # Half of a tree is left to the answers that are grown onto it.
        most = self._most if self._trie.is_flat else self._most // 2
        for places, tree in packed(prompts, most):
            forward = _Forward(self._model)
            # Equal prompts end at the same place and are answered once.
            ends, rows = np.unique(tree.ends, return_inverse=True)
            needed = None
            if wanted is not None:
                # Of equal prompts one may want an answer that another does not.
                needed = np.zeros((len(ends), self._trie.num_categories), np.bool_)
                np.logical_or.at(needed, rows, wanted[places])
            logits = forward.extend(tree.tokens, tree.depths, tree.parents, keep=ends.tolist()).logits[0]
            yield places, self._grown(forward, ends, logits, count, needed)[rows]

    def _grown(
        self,
        forward: _Forward,
        ends: NDArray[np.int64],
        logits: Tensor,
        count: int | None,
        wanted: NDArray[np.bool_] | None,
    ) -> NDArray[np.float32]:
        found = np.full((len(ends), self._trie.num_categories), -np.inf, np.float32)
        # Unfinished answers: whose they are, where in the trie and in the tree they stand, and how probable they are.
        open_rows = np.arange(len(ends))
        open_nodes = np.zeros(len(ends), np.int64)
        open_slots = ends
        open_values = np.zeros(len(ends))
        while len(open_rows):
            rows, nodes, slots, values, tokens = [], [], [], [], []
            for number in np.unique(open_nodes).tolist():
                node, at = self._trie.nodes[number], np.flatnonzero(open_nodes == number)
                if not node.tokens:
                    continue
                choices = torch.log_softmax(logits[at][:, self._tokens[number]].float(), -1).cpu().numpy()
                choices = choices + open_values[at, None]
                categories, children = np.array(node.categories), np.array(node.children)
                leaves = np.flatnonzero(categories >= 0)
                found[open_rows[at][:, None], categories[leaves]] = choices[:, leaves]
                inner = np.flatnonzero(categories < 0)
                rows.append(np.repeat(open_rows[at], len(inner)))
                nodes.append(np.tile(children[inner], len(at)))
                slots.append(np.repeat(open_slots[at], len(inner)))
                values.append(choices[:, inner].ravel())
                tokens.append(np.tile(np.array(node.tokens)[inner], len(at)))
            if not rows:
                break
            open_rows, open_nodes, open_values = map(np.concatenate, (rows, nodes, values))
            all_slots, all_tokens = np.concatenate(slots), np.concatenate(tokens)
            if wanted is not None:
                if count is None:
                    kept = np.flatnonzero((wanted[open_rows] & self._below[open_nodes]).any(axis=1))
                else:
                    kept = self._promising(found, open_rows, open_values, count, wanted)
                open_rows, open_nodes, open_values = open_rows[kept], open_nodes[kept], open_values[kept]
                all_slots, all_tokens = all_slots[kept], all_tokens[kept]
            if not len(open_rows):
                break
            open_slots = forward.length + np.arange(len(open_rows))
            depths = [forward.depths[slot] + 1 for slot in all_slots.tolist()]
            logits = forward.extend(all_tokens.tolist(), depths, all_slots.tolist()).logits[0]
        return found

    def _promising(
        self,
        found: NDArray[np.float32],
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        count: int,
        wanted: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Choose the unfinished answers to extend: those more probable than the count-th finished one (what grows
        on only loses probability), and of each prompt the best `width`."""
        finished = np.where(wanted, found, -np.inf)
        if count < finished.shape[1]:
            bound = np.partition(finished, -count, axis=1)[:, -count]
            alive = np.flatnonzero(values >= bound[rows])
        else:
            alive = np.arange(len(rows))
        order = alive[np.lexsort((-values[alive], rows[alive]))]
        ordered = rows[order]
        starts = np.searchsorted(ordered, ordered)
        chosen: NDArray[np.int64] = np.sort(order[np.arange(len(order)) - starts < self._width])
        return chosen


class _Forward:
    """A model's passes over one growing tree."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache = DynamicCache()
        self._seen = np.zeros((0, 0), np.bool_)
        self.depths: list[int] = []

    @property
    def length(self) -> int:
        """Tokens of the tree so far."""
        return len(self.depths)

    def extend(
        self, tokens: Sequence[int], depths: Sequence[int], parents: Sequence[int], keep: Sequence[int] | None = None
    ) -> Any:
        """Add tokens below their parents (places in the tree, -1 for none) and run the model over them.

        keep: places whose logits are wanted; none: all.
        """
        before, added = self.length, len(tokens)
        seen = np.zeros((before + added, before + added), np.bool_)
        seen[:before, :before] = self._seen
        for place, parent in enumerate(parents, before):
            if parent >= 0:
                seen[place] = seen[parent]
            seen[place, place] = True
        self._seen = seen
        self.depths += depths
        device, dtype = self._model.device, self._model.dtype
        mask = torch.zeros((added, before + added), dtype=dtype)
        mask.masked_fill_(torch.from_numpy(~seen[before:]), torch.finfo(dtype).min)
        selection = {} if keep is None else {"logits_to_keep": torch.tensor(keep, device=device)}
        return self._model(
            input_ids=torch.tensor([list(tokens)], device=device),
            position_ids=torch.tensor([list(depths)], device=device),
            attention_mask=mask[None, None].to(device),
            past_key_values=self._cache,
            use_cache=True,
            **selection,
        )


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two sequences begin with alike."""
    most = min(len(one), len(other))
    for place in range(most):
        if one[place] != other[place]:
            return place
    return most
