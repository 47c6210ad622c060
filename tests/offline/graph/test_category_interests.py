"""A language model is asked once a category; what it names crosses categories, and is held by those who click there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from serendipity.interests.text import MAX_CHARS
from serendipity.offline.graph.category_interests import (
    CATEGORIES,
    CategoryInterests,
    category_prompt,
    read_answers,
    read_interests,
)
from serendipity.offline.graph.held_interests import HeldConfig, infer_held_interests
from serendipity.offline.graph.served_graph import NONE_HELD, ServedGraphError
from serendipity.offline.language_models.config import EndpointConfig, LocalConfig
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import (
    GREEDY,
    Completion,
    LanguageModelError,
    Prompt,
    Sampling,
)
from serendipity.offline.language_models.local import LocalModel
from serendipity.offline.logs.catalogue import Catalogue
from tests.fixtures.hostile_texts import HOSTILE_TEXTS
from tests.fixtures.tiny_language_model import make_tiny_language_model
from tests.offline.graph.small_themes import NUM_ITEMS, NUM_USERS, catalogue, histories

PATHS = [(f"shelf {row * 2 // NUM_ITEMS}", f"theme {row % 8}") for row in range(NUM_ITEMS)]
"""A leaf category of each theme on each of two shelves."""

HOBBIES = (
    ("home baking", "baking bread"), ("folk guitar", "guitar playing"), ("wild camping", "camping trips"),
    ("board games", "games night"), ("urban gardening", "gardening vegetables"),
    ("bird photography", "photography outdoors"), ("letter writing", "writing diaries"),
    ("city cycling", "cycling tours"),
)  # fmt: skip
"""What leads to each theme, as it is called on either shelf."""


@dataclass
class Scripted:
    """Knows an answer for each category."""

    answers: Mapping[str, str]
    name: str = "scripted"
    asked: list[Prompt] = field(default_factory=list)

    def complete(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Completion]:
        self.asked += prompts
        said = [self.answers.get(prompt.user.splitlines()[0].removeprefix("Category: "), "") for prompt in prompts]
        return [Completion(text, 1, 1, finished=True) for text in said]


def shop() -> Catalogue:
    return replace(catalogue(), paths=PATHS)


def knowing() -> Scripted:
    answers = {
        f"shelf {shelf} > theme {theme}": f"1. {HOBBIES[theme][shelf].title()}\n2. saving money"
        for shelf in range(2)
        for theme in range(8)
    }
    return Scripted(answers)


def test_each_clicked_category_is_asked_about_once_and_what_is_known_never() -> None:
    model = knowing()
    known = {("shelf 0", "theme 3"): ("model railways",)}
    named = CategoryInterests(model, known)
    first = named.of_items(histories(), shop())
    assert len(model.asked) == len(set(PATHS)) - 1
    assert first[3] == ("model railways",)
    assert first[0] == ("home baking", "saving money")
    assert named.of_items(histories(), shop()) == first
    assert len(model.asked) == len(set(PATHS)) - 1
    assert named.numbers == {"categories asked about": len(set(PATHS)), "of them without an interest": 0}


def test_nothing_is_asked_about_categories_that_nobody_clicked() -> None:
    model = knowing()
    assert set(CategoryInterests(model, {}).of_items(histories(clicks=0), shop())) == {()}
    assert model.asked == []


def test_the_most_clicked_titles_are_told() -> None:
    made = histories()
    made.items[:] = 1
    made.items[:3] = 9
    asked = Scripted({})
    CategoryInterests(asked, {}).of_items(made, shop())
    (prompt,) = asked.asked
    titles = catalogue().titles
    assert prompt.user == f"Category: shelf 0 > theme 0\nTitles: {titles[0]}; {titles[8]}\nInterests:"


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_no_text_of_the_catalogue_leaves_its_place(text: str) -> None:
    prompt = category_prompt([text] * 9, [f"{text} {n}" for n in range(900)])
    assert len(prompt.user.splitlines()) == 3
    assert len(prompt.user) < 12 * (MAX_CHARS + 4)
    assert prompt.system == category_prompt(["tea"], []).system


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("- Science fiction\n- Sci-Fi & fantasy\n* tea\n", ("science fiction", "sci fi and fantasy", "tea")),
        ("Here are some interests:\n1) Baking.\n2) baking\n3) Home cooking", ("baking", "home cooking")),
        ("cooking, camping; crafts, reading", ("cooking", "camping", "crafts")),
        ("I am sorry but I can not tell that from the titles alone", ()),
        ("visit www.example.com\nTitles: tea\nnone\n...\n42 55 66 77", ()),
        ("", ()),
    ],
)
def test_answers_are_read_tolerantly_and_cleaned(answer: str, expected: tuple[str, ...]) -> None:
    assert read_interests(answer) == expected


def test_held_interests_are_what_the_model_named_and_cross_categories() -> None:
    config = HeldConfig(num_clusters=(2, 8))
    inferred = infer_held_interests(histories(), shop(), config, CategoryInterests(knowing(), {}))
    assert set(inferred.names) <= {*(name for names in HOBBIES for name in names), "saving money"}
    assert {inferred.gains[8, most] > inferred.gains[2, most] for most in config.most_held} == {True}
    # What either shelf calls differently is one interest.
    crossing = {
        theme for theme in range(8) if np.isin(inferred.items[theme], inferred.items[NUM_ITEMS // 2 + theme]).all()
    }
    assert len(crossing) >= 6
    holds = inferred.held[:, 0] != NONE_HELD
    right = [inferred.held[user, 0] in inferred.items[user % 8 :: 8] for user in range(NUM_USERS)]
    assert holds.mean() > 0.5
    # By chance one in eight. Of some thirty users two or three lie between themes: whom, processors' rounding decides.
    assert np.array(right)[holds].mean() > 0.8


def test_what_everybody_is_said_to_hold_is_held_by_nobody() -> None:
    config = HeldConfig(num_clusters=(8,))
    inferred = infer_held_interests(histories(), shop(), config, CategoryInterests(knowing(), {}))
    of_all = [c for c in range(8) if (inferred.items == c).any(axis=1).all()]
    assert not np.isin(inferred.held, of_all).any()


def test_an_item_speaks_for_an_interest_once_however_often_it_is_named() -> None:
    """Two phrases of one category in one cluster."""
    one = Scripted({f"{a} > {b}": "rock music\nmusic rock\nrock music bands" for a, b in PATHS})
    inferred = infer_held_interests(histories(), shop(), HeldConfig(num_clusters=(1,)), CategoryInterests(one, {}))
    assert inferred.names == ("rock music",)
    np.testing.assert_array_equal((inferred.items != NONE_HELD).sum(axis=1), 1)


def test_useless_answers_give_no_interest_and_are_counted() -> None:
    half = knowing()
    half.answers = {category: "" if category.startswith("shelf 0") else said for category, said in half.answers.items()}
    named = CategoryInterests(half, {})
    inferred = infer_held_interests(histories(), shop(), HeldConfig(num_clusters=(4,)), named)
    assert (inferred.items[: NUM_ITEMS // 2] == NONE_HELD).all()
    assert (inferred.held != NONE_HELD).any()
    assert named.numbers["of them without an interest"] == 8
    nothing = infer_held_interests(histories(), shop(), HeldConfig(), CategoryInterests(Scripted({}), {}))
    assert nothing.edges.shape == (2, 0)
    assert len(nothing.names) == 1


def test_answers_outlive_a_build(tmp_path: Path) -> None:
    assert read_answers(tmp_path) == {}
    named = CategoryInterests(knowing(), {})
    named.of_items(histories(), shop())
    named.write(tmp_path)
    assert read_answers(tmp_path) == named.answers
    (tmp_path / CATEGORIES).write_text('[{"path": 3}]')
    with pytest.raises(ServedGraphError, match=rf"{CATEGORIES}: cannot be read"):
        read_answers(tmp_path)


def test_a_local_model_can_be_asked(tmp_path: Path) -> None:
    """One of random weights names nothing that means anything: it is held apart from an error."""
    model = LocalModel.open(LocalConfig(path=make_tiny_language_model(tmp_path / "model"), device="cpu"))
    inferred = infer_held_interests(histories(), shop(), HeldConfig(), CategoryInterests(model, {}))
    assert inferred.items.shape[0] == NUM_ITEMS
    assert all(inferred.names)


def test_an_endpoint_that_is_away_is_one_clear_error() -> None:
    config = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="judge", max_retries=0)
    with pytest.raises(LanguageModelError, match=r"judge at 127\.0\.0\.1:9: no connection"):
        CategoryInterests(open_language_model(config), {}).of_items(histories(), shop())
