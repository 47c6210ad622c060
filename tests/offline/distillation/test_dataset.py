import json
from pathlib import Path

import pytest

from serendipity.interests.answer import read_answer
from serendipity.interests.prompt import PromptStyle
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.distillation.dataset import (
    DatasetError,
    DatasetSummary,
    build_dataset,
    read_examples,
)
from serendipity.offline.distillation.moments import SPLITS, cuts_of, judged_at, split_of
from tests.offline.distillation.conftest import Shop

SMALL = DatasetConfig(num_examples=60, num_interests=4, max_cuts=2, depth=8, horizon_days=14)


def build(shop: Shop, out: Path, config: DatasetConfig = SMALL, style: PromptStyle = "compact") -> DatasetSummary:
    return build_dataset(shop.material, out, config, style)


def test_every_context_becomes_an_example_or_is_rejected_with_a_reason(shop: Shop, tmp_path: Path) -> None:
    summary = build(shop, tmp_path)
    assert sum(summary.examples.values()) + sum(summary.rejected.values()) == 60
    examples = read_examples(tmp_path)
    assert len({example.prompt for example in examples}) == len(examples)


def test_answers_are_grounded_novel_and_name_each_category_once(shop: Shop, tmp_path: Path) -> None:
    build(shop, tmp_path)
    for example in read_examples(tmp_path):
        proposals = read_answer(example.answer)
        grounded = shop.grounder.ground(proposals)
        known = shop.histories.clicks_before(shop.histories.user_numbers[example.user_id], example.as_of).categories
        categories = [found.node.category for found in grounded if found is not None]
        assert len(categories) == len(proposals) <= SMALL.num_interests
        assert not {*categories} & {*known.tolist()}
        assert len({*categories}) == len(categories)
        assert list(json.loads(example.answer)["interests"][0]) == ["category", "seed", "demand", "interest"]


def test_users_are_in_one_split_whatever_the_moment(shop: Shop, tmp_path: Path) -> None:
    build(shop, tmp_path)
    examples = read_examples(tmp_path)
    assert all(example.split == split_of(example.user_id) for example in examples)
    assert {example.split for example in examples} <= {*SPLITS}


def test_the_same_configuration_makes_the_same_data_set_and_another_does_not(shop: Shop, tmp_path: Path) -> None:
    build(shop, tmp_path)
    made = read_examples(tmp_path)
    build(shop, tmp_path)
    assert read_examples(tmp_path) == made
    build(shop, tmp_path, SMALL.model_copy(update={"seed": 1}))
    assert read_examples(tmp_path) != made


def test_nothing_of_what_is_judged_by_is_learned_from(shop: Shop) -> None:
    latest, before = cuts_of(shop.histories, shop.until, SMALL)
    assert before < latest <= judged_at(shop.until, SMALL) - 14 * 86_400
    assert judged_at(shop.until, SMALL) == shop.until - 14 * 86_400


def test_logs_shorter_than_three_times_the_horizon_are_refused(shop: Shop) -> None:
    with pytest.raises(ValueError, match="expected logs of at least three times the horizon"):
        cuts_of(shop.histories, shop.until, SMALL.model_copy(update={"horizon_days": 4_000.0}))


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.parquet: cannot be read"):
        read_examples(tmp_path)


def test_users_without_searches_are_lent_one_and_the_teacher_reasons_from_it(shop: Shop, tmp_path: Path) -> None:
    build(shop, tmp_path / "lent", SMALL.model_copy(update={"search_share": 1.0}))
    build(shop, tmp_path / "bare", SMALL.model_copy(update={"search_share": 0.0}))
    lent, bare = read_examples(tmp_path / "lent"), read_examples(tmp_path / "bare")
    assert not any(_line(example.prompt, "searches") for example in bare)
    searches = [_line(example.prompt, "searches") for example in lent]
    assert all(search in shop.vocabulary.categories for search in searches)
    from_search = [
        any(proposal.seed == search for proposal in read_answer(example.answer))
        for example, search in zip(lent, searches, strict=True)
    ]
    assert sum(from_search) > len(lent) / 2


def _line(prompt: str, name: str) -> str:
    return next(line.partition(": ")[2] for line in prompt.splitlines() if line.startswith(f"{name}: "))
