"""The feature assembler."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serendipity.features import INPUT_NAMES, FeatureAssembler, LongHistory, TowerInputs, with_clicks
from serendipity.novelty import Clicks
from serendipity.v1 import records_pb2

ASSEMBLER = FeatureAssembler(
    history_length=3,
    max_long_categories=2,
    max_interests=2,
    interest_dim=4,
    profile_fields={"age": {"young": 1, "old": 2}, "income": {"low": 1}},
)
CLICKS = Clicks(np.array([5, 4, 3, 2]), np.array([1, 1, 2, 2], np.int32), np.array([90, 80, 70, 60]))
LONG = LongHistory(np.array([2, 1, 3], np.int32), np.array([9, 4, 1], np.int32), np.array([70, 90, 10]))


def assemble(clicks: Clicks = CLICKS, long: LongHistory = LONG, interests: int = 1) -> TowerInputs:
    profile = ASSEMBLER.encode_profile({"age": "old", "income": "unheard of", "shoe size": "42"})
    return ASSEMBLER.assemble(clicks, long, profile, np.ones((interests, 4), np.float32), now=100)


def test_history_is_cut_at_its_length_newest_first_with_ages_in_seconds() -> None:
    inputs = assemble()
    assert inputs.history_items.tolist() == [[5, 4, 3]]
    assert inputs.history_ages.tolist() == [[10, 20, 30]]


def test_long_term_categories_keep_their_order_counts_and_ages() -> None:
    inputs = assemble()
    assert inputs.long_categories.tolist() == [[2, 1]]
    assert inputs.long_counts.tolist() == [[9, 4]]
    assert inputs.long_ages.tolist() == [[30, 10]]


def test_unknown_profile_values_are_0_and_unknown_names_are_ignored() -> None:
    assert assemble().profile.tolist() == [[2, 0]]


def test_there_are_as_many_rows_as_interests_one_at_least_and_surplus_ones_are_cut() -> None:
    for interests, rows in ((0, [0]), (1, [4]), (2, [4, 4]), (9, [4, 4])):
        assembled = assemble(interests=interests).interests
        assert assembled.shape == (1, len(rows), 4)
        assert assembled[0].sum(axis=1).tolist() == rows


def test_a_new_user_is_all_zeros() -> None:
    inputs = ASSEMBLER.assemble(
        Clicks.empty(), LongHistory.empty(), ASSEMBLER.encode_profile({}), np.empty((0, 4), np.float32), now=100
    )
    assert not any(getattr(inputs, name).any() for name in inputs.__dataclass_fields__)


def test_an_event_from_the_future_has_age_0() -> None:
    future = Clicks(np.array([1]), np.array([1], np.int32), np.array([10**12]))
    assert assemble(clicks=future).history_ages.tolist() == [[0, 0, 0]]


def test_a_batch_is_its_users_one_after_another() -> None:
    batch = TowerInputs.stack([assemble(), assemble(interests=2), assemble(interests=0)])
    assert len(batch) == 3
    # As many interests as the user with the most has; rows past a user's are zero.
    assert batch.interests.sum(axis=2).tolist() == [[4, 0], [4, 4], [0, 0]]
    for name in INPUT_NAMES[:-1]:
        np.testing.assert_array_equal(getattr(batch, name), np.repeat(getattr(assemble(), name), 3, axis=0))


def test_the_tower_is_fed_its_tensors_by_name_with_embeddings_as_halves() -> None:
    inputs = assemble()
    arrays = inputs.arrays()
    assert tuple(arrays) == INPUT_NAMES
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        **dict.fromkeys(INPUT_NAMES, "int32"),
        "interests": "float16",
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, getattr(inputs, name))
    assert inputs.interests.dtype == np.float32


def test_the_assembler_reads_its_sizes_from_the_manifest() -> None:
    field = records_pb2.ProfileField(name="age", values=["young", "old"])
    spec = records_pb2.TowerSpec(
        history_length=3, max_long_categories=2, max_interests=2, interest_dim=4, profile_fields=[field]
    )
    assert FeatureAssembler.from_spec(spec).encode_profile({"age": "old"}).tolist() == [2]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=30), st.integers(0, 30))
def test_laying_later_clicks_over_a_long_history_equals_counting_them_all(
    rows: list[tuple[int, int]], cut: int
) -> None:
    rows = sorted(rows, key=lambda row: -row[1])
    later, before = rows[:cut], rows[cut:]

    def columns(part: list[tuple[int, int]]) -> Clicks:
        array = np.array(part, np.int64).reshape(-1, 2)
        return Clicks(np.arange(len(part)), array[:, 0].astype(np.int32), array[:, 1])

    whole = with_clicks(LongHistory.empty(), columns(rows))
    parts = with_clicks(with_clicks(LongHistory.empty(), columns(before)), columns(later))
    assert whole.categories.tolist() == parts.categories.tolist()
    assert whole.counts.tolist() == parts.counts.tolist()
    assert whole.last_times.tolist() == parts.last_times.tolist()


def test_without_profile_fields_the_profile_is_one_column_of_zeros() -> None:
    bare = FeatureAssembler(history_length=3, max_long_categories=2, max_interests=2, interest_dim=4)
    inputs = bare.assemble(
        Clicks.empty(), LongHistory.empty(), np.empty(0, np.int32), np.empty((0, 4), np.float32), now=100
    )
    assert bare.profile_width == 1
    assert inputs.profile.tolist() == [[0]] == [bare.encode_profile({"age": "old"}).tolist()]
