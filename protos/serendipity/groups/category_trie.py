"""The catalogue's category names as a trie of tokens: what the Novelty LLM can be made to answer, and nothing else.

Stands alone: it needs numpy and nothing of this package, so that Triton's Python, where serendipity is not installed,
can load a copy of this file placed beside a model.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NO_LEAF = -1
"""Stands for the category where several are still possible."""


@dataclass(frozen=True)
class TrieNode:
    """What may follow some tokens. depth: how many they are.

    tokens: distinct next tokens; children: the nodes they lead to, NO_NODE where one category is left; categories: that
    category (index in the catalogue), NO_LEAF where several are left.
    """

    depth: int
    tokens: list[int] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    categories: list[int] = field(default_factory=list)


NO_NODE = -1


class CategoryTrie:
    """A trie over answers, each ended by the token that ends answers, so that none begins another.

    answers: tokens of each category's answer, without the end, by category. Where two are equal or one is empty, the
    later category, or the empty one, cannot be answered: `unreachable` lists them. A branch with a single category is
    cut short: its remaining tokens are certain. nodes[0] is the root; its tokens are empty where no category can be
    answered.
    """

    def __init__(self, answers: Sequence[Sequence[int]], end: int) -> None:
        self.num_categories = len(answers)
        chosen: dict[tuple[int, ...], int] = {}
        for category, tokens in enumerate(answers):
            if tokens:
                chosen.setdefault((*tokens, end), category)
        reachable = set(chosen.values())
        self.unreachable = [category for category in range(len(answers)) if category not in reachable]
        self.nodes: list[TrieNode] = []
        self._grow(sorted(chosen.items()), 0)

    @property
    def is_flat(self) -> bool:
        """Tell whether the first token of an answer tells the category: one look at the prompt ranks them all."""
        return len(self.nodes) == 1

    def below(self) -> NDArray[np.bool_]:
        """Mark the categories that can still be answered at each node: [nodes, categories]."""
        marked = np.zeros((len(self.nodes), self.num_categories), np.bool_)
        # A node's children have higher numbers than itself.
        for number in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[number]
            for child, category in zip(node.children, node.categories, strict=True):
                if category == NO_LEAF:
                    marked[number] |= marked[child]
                else:
                    marked[number, category] = True
        return marked

    def _grow(self, answers: list[tuple[tuple[int, ...], int]], depth: int) -> int:
        """Add the node of answers that share `depth` tokens, sorted; and all below it. Returns its number."""
        node = TrieNode(depth)
        number = len(self.nodes)
        self.nodes.append(node)
        start = 0
        while start < len(answers):
            token = answers[start][0][depth]
            stop = start
            while stop < len(answers) and answers[stop][0][depth] == token:
                stop += 1
            alone = stop - start == 1
            node.tokens.append(token)
            node.categories.append(answers[start][1] if alone else NO_LEAF)
            node.children.append(NO_NODE if alone else self._grow(answers[start:stop], depth + 1))
            start = stop
        return number
