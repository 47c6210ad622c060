"""From the two LLMs' answers to a novel-category list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.groups.lists import AlignedCategory, aligned_list, alignment, llms_hash
from serendipity.v1 import records_pb2


def test_a_list_holds_what_reaches_the_threshold_best_aligned_first() -> None:
    assert aligned_list(["a", "b", "c", "d"], [0.5, 0.9, 0.49, float("nan")], 0.5) == [
        AlignedCategory("b", 0.9),
        AlignedCategory("a", 0.5),
    ]


def test_equals_keep_the_novelty_llms_order() -> None:
    assert [found.category for found in aligned_list(["b", "a"], [0.5, 0.5], 0.0)] == ["b", "a"]


def test_alignment_is_a_logistic_curve() -> None:
    assert alignment(2.0, 0.5, -1.0) == pytest.approx(0.5)
    assert alignment(3.0, 1.0, 0.0) == pytest.approx(0.9525741268)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(-1e3, 1e3))
def test_alignment_is_within_0_and_1(score: float, scale: float, offset: float) -> None:
    assert 0 <= alignment(score, scale, offset) <= 1


@pytest.mark.parametrize(
    "changed",
    [
        {"novelty_fingerprint": "b" * 16},
        {"relevance_fingerprint": "b" * 16},
        {"prompt_style": "chat"},
        {"num_candidates": 9},
        {"threshold": 0.25},
        {"score_scale": 2.0},
        {"score_offset": -1.0},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_changes_lists_changes_what_their_llms_are_known_by(changed: dict[str, object]) -> None:
    spec = records_pb2.CoevolutionSpec(
        novelty_fingerprint="a" * 16, relevance_fingerprint="a" * 16, prompt_style="compact", num_candidates=8
    )
    other = records_pb2.CoevolutionSpec()
    other.CopyFrom(spec)
    for field, value in changed.items():
        setattr(other, field, value)
    assert llms_hash(spec) != llms_hash(other)
    other.CopyFrom(spec)
    other.max_batch = 64
    assert 0 < llms_hash(spec) == llms_hash(other) < 1 << 64
