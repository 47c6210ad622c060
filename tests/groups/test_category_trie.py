"""The trie of what the Novelty LLM may answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serendipity.groups.category_trie import NO_LEAF, NO_NODE, CategoryTrie

END = 9


def answerable(trie: CategoryTrie, number: int = 0) -> set[int]:
    node = trie.nodes[number]
    below = [answerable(trie, child) for child in node.children if child != NO_NODE]
    return {category for category in node.categories if category != NO_LEAF}.union(*below)


def test_names_that_begin_alike_part_at_the_token_that_differs() -> None:
    trie = CategoryTrie([[1, 2, 3], [1, 2, 4], [5, 6]], END)
    root, shared, parting = trie.nodes
    assert (root.tokens, root.categories, root.children) == ([1, 5], [NO_LEAF, 2], [1, NO_NODE])
    assert (shared.depth, shared.tokens, shared.children) == (1, [2], [2])
    assert (parting.depth, parting.tokens, parting.categories) == (2, [3, 4], [0, 1])
    assert not trie.is_flat


def test_a_node_knows_what_is_below_it() -> None:
    trie = CategoryTrie([[1, 2, 3], [1, 2, 4], [5, 6]], END)
    assert trie.below().tolist() == [[True, True, True], [True, True, False], [True, True, False]]


def test_a_name_that_begins_another_is_told_by_the_end() -> None:
    trie = CategoryTrie([[1], [1, 2]], END)
    assert trie.nodes[1].tokens == [2, END]
    assert trie.nodes[1].categories == [1, 0]


def test_one_token_each_is_flat() -> None:
    assert CategoryTrie([[3], [1], [2]], END).is_flat
    assert CategoryTrie([[3], [1], [2]], END).nodes[0].categories == [1, 2, 0]


def test_what_cannot_be_told_apart_or_has_no_name_is_unreachable() -> None:
    trie = CategoryTrie([[1], [], [1], [2]], END)
    assert trie.unreachable == [1, 2]
    assert answerable(trie) == {0, 3}
    assert CategoryTrie([], END).nodes[0].tokens == []


@given(st.lists(st.lists(st.integers(1, 3), max_size=4), max_size=12))
def test_every_category_is_answerable_or_unreachable(answers: list[list[int]]) -> None:
    trie = CategoryTrie(answers, END)
    assert answerable(trie) | set(trie.unreachable) == set(range(len(answers)))
    assert not answerable(trie) & set(trie.unreachable)
