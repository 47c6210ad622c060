"""The grounding threshold is chosen where names of goods ground right and names of nothing do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.interests.answer import Proposal
from serendipity.offline.interests.grounding_threshold import CHATTER, LEAST, tune_threshold
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.catalogue import Catalogue
from tests.fixtures.small_shop import encode, make_grounder

GOODS = ("coffee", "tea", "bread", "cheese", "candles", "drills", "saws", "hoses", "lamps", "rugs", "soap", "toys")
KINDS = ("small", "large", "organic", "classic")


@pytest.fixture
def store(catalogue_of: Callable[..., Catalogue]) -> Catalogue:
    return catalogue_of(
        {
            f"{kind} {good} no {n}": ("shop", good, f"{kind} {good}")
            for good in GOODS
            for kind in KINDS
            for n in range(3)
        }
    )


def test_the_threshold_parts_goods_from_what_belongs_nowhere(store: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(store)
    report = tune_threshold(taxonomy, store, encode(taxonomy.texts), encode)
    assert report.reached
    assert report.precision >= 0.9
    assert report.recall >= 0.8
    assert LEAST <= report.threshold < 1
    assert report.accepted["chatter"] == 0
    assert report.accepted["title"] > 0.9
    assert report.names["title"] == len(set(store.titles))
    grounder = make_grounder(taxonomy, report.threshold)
    said = [Proposal("", "", text, "") for text in ("drills small", "organic rug", *CHATTER)]
    assert [bool(grounding) for grounding in grounder.ground(said)] == [True, True, *[False] * len(CHATTER)]


def test_the_same_seed_gives_the_same_threshold(store: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(store)
    vectors = encode(taxonomy.texts)
    assert tune_threshold(taxonomy, store, vectors, encode) == tune_threshold(taxonomy, store, vectors, encode)


def test_asking_for_more_precision_never_lowers_the_threshold(store: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(store)
    vectors = encode(taxonomy.texts)
    found = [tune_threshold(taxonomy, store, vectors, encode, precision=precision) for precision in (0.5, 0.9, 0.99)]
    thresholds = [report.threshold for report in found]
    assert thresholds == sorted(thresholds)


def test_an_encoder_that_knows_nothing_does_not_reach_the_precision(store: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(store)

    def blind(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.float32([1, 0]), (len(texts), 1))

    report = tune_threshold(taxonomy, store, blind(taxonomy.texts), blind)
    assert not report.reached
    assert report.threshold == 1.0


def test_no_more_names_than_wanted_are_encoded(store: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(store)
    asked: list[str] = []

    def watched(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return encode(texts)

    tune_threshold(taxonomy, store, encode(taxonomy.texts), watched, max_names=10)
    assert len(asked) <= 5 * 10 + len(CHATTER)


def test_brands_before_a_name_are_names_as_well(shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    brands = ["Kofi"] * len(shop)
    branded = Catalogue(**{**vars(shop), "brands": brands})
    report = tune_threshold(taxonomy, branded, encode(taxonomy.texts), encode)
    assert report.names["brand"] > 0


def test_a_catalogue_without_categories_is_refused(catalogue_of: Callable[..., Catalogue]) -> None:
    empty = catalogue_of({"voucher": ("misc",)})
    taxonomy = Taxonomy.from_catalogue(empty)
    with pytest.raises(ValueError, match="found no nodes"):
        tune_threshold(taxonomy, empty, encode(taxonomy.texts), encode)
