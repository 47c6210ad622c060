"""Packed trees give what single passes give, and only catalogue categories come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification

from serendipity.groups.category_trie import NO_NODE, CategoryTrie
from serendipity.groups.decoding import CategoryDecoder, TextScorer, packed
from tests.fixtures.tiny_language_model import make_tiny_language_model

END = 1
# Names that begin others, share beginnings, or have one token.
ANSWERS = [[7], [7, 8], [7, 8, 9], [10, 11, 12, 13], [10, 11, 12, 14], [10, 15], [20], [21, 7]]
PROMPTS = [[30, 31, 32, 33], [30, 31, 40], [50], [30, 31, 32, 33], [60, 61, 62, 63, 64, 65]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaForSequenceClassification:
    return AutoModelForCausalLM.from_pretrained(make_tiny_language_model(tmp_path_factory.mktemp("lm"))).eval()


@torch.inference_mode()
def brute_force(model: object, prompt: list[int], trie: CategoryTrie, answers: list[list[int]]) -> list[float]:
    """Run the model over every answer alone, without cache or tree, renormalising at each of its tokens."""
    values = []
    for answer in answers:
        tokens, node, value = [*answer, END], 0, 0.0
        for place, token in enumerate(tokens):
            choices = trie.nodes[node].tokens
            logits = model(input_ids=torch.tensor([prompt + tokens[:place]])).logits[0, -1]  # type: ignore[operator]
            value += float(torch.log_softmax(logits[choices], -1)[choices.index(token)])
            node = trie.nodes[node].children[choices.index(token)]
            if node == NO_NODE:
                break
        values.append(value)
    return values


def test_log_probabilities_are_those_of_scoring_every_name_alone(model: object) -> None:
    trie = CategoryTrie(ANSWERS, END)
    found = CategoryDecoder(model, trie).log_probabilities(PROMPTS)
    expected = [brute_force(model, prompt, trie, ANSWERS) for prompt in PROMPTS]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)


def test_what_is_not_wanted_changes_nothing_of_what_is(model: object) -> None:
    decoder = CategoryDecoder(model, CategoryTrie(ANSWERS, END))
    wanted = np.random.default_rng(0).random((len(PROMPTS), len(ANSWERS))) < 0.3
    # Equal prompts that want something else.
    wanted[0], wanted[3] = np.arange(len(ANSWERS)) == 2, np.arange(len(ANSWERS)) == 4
    whole, some = decoder.log_probabilities(PROMPTS), decoder.log_probabilities(PROMPTS, wanted)
    np.testing.assert_allclose(some[wanted], whole[wanted], atol=1e-4)


def test_a_batch_gives_what_single_prompts_give(model: object) -> None:
    decoder = CategoryDecoder(model, CategoryTrie(ANSWERS, END))
    together = decoder.best(PROMPTS, 4)
    for prompt, expected in zip(PROMPTS, together, strict=True):
        (alone,) = decoder.best([prompt], 4)
        assert [category for category, _ in alone] == [category for category, _ in expected]
        np.testing.assert_allclose([v for _, v in alone], [v for _, v in expected], atol=1e-4)


def test_equal_prompts_are_answered_by_what_each_excludes(model: object) -> None:
    decoder = CategoryDecoder(model, CategoryTrie(ANSWERS, END), width=2)
    everything = set(range(len(ANSWERS)))
    one, other = decoder.best([PROMPTS[0]] * 2, 8, [everything - {1, 2}, {1, 2}])
    assert {category for category, _ in one} <= {1, 2}
    assert not {category for category, _ in other} & {1, 2}


def test_a_catalogue_without_names_has_no_answers(model: object) -> None:
    assert CategoryDecoder(model, CategoryTrie([], END)).best(PROMPTS, 3) == [[]] * len(PROMPTS)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_allowed_distinct_categories_come_out_with_their_log_probabilities(
    model: object, data: st.DataObject
) -> None:
    answers = data.draw(st.lists(st.lists(st.integers(2, 6), min_size=1, max_size=3), min_size=1, max_size=10))
    excluded = data.draw(st.sets(st.integers(0, len(answers) - 1)))
    count = data.draw(st.integers(1, 12))
    trie = CategoryTrie(answers, END)
    decoder = CategoryDecoder(model, trie)
    (all_values,) = decoder.log_probabilities([PROMPTS[0]])
    (found,) = decoder.best([PROMPTS[0]], count, [excluded])
    categories = [category for category, _ in found]
    allowed = set(range(len(answers))) - excluded - set(trie.unreachable)
    assert set(categories) <= allowed
    assert len(set(categories)) == len(categories) == min(count, len(allowed))
    values = [value for _, value in found]
    assert values == sorted(values, reverse=True)
    np.testing.assert_allclose(values, np.sort(all_values[sorted(allowed)])[::-1][: len(values)], atol=1e-4)
    assert np.exp(values).sum() <= 1 + 1e-5


def test_texts_packed_into_a_tree_score_as_alone() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_labels=1, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    texts = [[*prompt, candidate] for prompt in PROMPTS for candidate in (70, 71)]
    with torch.inference_mode():
        expected = [float(model(input_ids=torch.tensor([text])).logits) for text in texts]
    np.testing.assert_allclose(TextScorer(model).score(texts), expected, atol=1e-4)
    assert TextScorer(model).score([]).shape == (0,)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), max_size=20), st.integers(1, 30))
def test_trees_hold_every_sequence_once(sequences: list[list[int]], most: int) -> None:
    seen: list[int] = []
    for places, tree in packed(sequences, most):
        seen += places
        assert len(tree.tokens) <= max(most, 6)
        for place, end in zip(places, tree.ends, strict=True):
            path, at = [], end
            while at >= 0:
                path.append(tree.tokens[at])
                assert tree.depths[at] == len(sequences[place]) - len(path)
                at = tree.parents[at]
            assert path[::-1] == sequences[place]
    assert sorted(seen) == list(range(len(sequences)))


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence 1: found no tokens"):
        list(packed([[1], []], 4))


def test_the_modules_stand_alone(tmp_path: Path) -> None:
    # Triton's Python has no serendipity: the files are copied beside a model.py.
    for name in ("category_trie", "decoding"):
        source = Path(__file__).parents[2] / "protos" / "serendipity" / "groups" / f"{name}.py"
        lines = [
            line for line in source.read_text(encoding="utf-8").splitlines() if line.startswith(("import ", "from "))
        ]
        assert not [line for line in lines if "serendipity" in line]
