import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from serendipity.offline.groups.config import InterestConfig
from serendipity.offline.groups.interest_encoder import InterestEncoder, Vocabulary

NUM_ITEMS = 12
CONFIG = InterestConfig(dim=8, num_layers=2, num_heads=2, window=3)

items_of = st.lists(st.integers(1, NUM_ITEMS), min_size=1, max_size=20)


def make_encoder() -> InterestEncoder:
    torch.manual_seed(3)
    vocabulary = Vocabulary(
        tokens=torch.tensor([0, *range(2, NUM_ITEMS), 1, 1]),
        categories=torch.tensor([0, *(row % 3 + 1 for row in range(NUM_ITEMS))]),
        num_tokens=NUM_ITEMS,
        num_categories=4,
    )
    encoder = InterestEncoder(vocabulary, [3, 2], CONFIG).eval()
    # Biases by distance begin at zero, and would hide a mistake in them.
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.attention.bias)
    return encoder


ENCODER = make_encoder()
PROFILE = torch.tensor([[1, 0]], dtype=torch.int32)


@torch.inference_mode()
def after(items: list[int]) -> Tensor:
    return ENCODER.interests(torch.tensor([items]), PROFILE)[0]


@settings(deadline=None, max_examples=60)
@given(items_of, st.data())
def test_a_later_item_changes_nothing_earlier(items: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(items) - 1))
    other = data.draw(st.integers(1, NUM_ITEMS))
    changed = [*items[:place], other, *items[place + 1 :]]
    assert torch.allclose(after(items)[: place + 1], after(changed)[: place + 1], atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(items_of)
def test_one_pass_gives_what_the_latest_clicks_alone_would(items: list[int]) -> None:
    for place, interest in enumerate(after(items)):
        latest = items[max(0, place - CONFIG.sequence_length) : place]
        sequence = torch.tensor([[0] * (CONFIG.sequence_length - len(latest)) + latest])
        with torch.inference_mode():
            assert torch.allclose(ENCODER.latest(sequence, PROFILE)[0], interest, atol=1e-5)


def test_every_click_that_can_be_seen_changes_the_interest() -> None:
    items = [1, 2, 3, 4, 5]
    unchanged = after(items)[-1]
    for place in range(len(items)):
        changed = [*items[:place], 9, *items[place + 1 :]]
        assert not torch.allclose(after(changed)[-1], unchanged, atol=1e-4), place


def test_clicks_out_of_reach_are_forgotten() -> None:
    reach = CONFIG.num_layers * (CONFIG.window - 1) + 1
    items = [1, 2, 3, 4, 5, 6, 7, 8]
    assert torch.allclose(after([9, *items])[-1], after([10, *items])[-1], atol=1e-6)
    assert len(items) > reach


def test_order_matters() -> None:
    assert not torch.allclose(after([1, 2, 3])[-1], after([2, 1, 3])[-1], atol=1e-4)


@torch.inference_mode()
def test_the_profile_changes_every_interest_and_unknown_values_are_like_none() -> None:
    sequences = torch.tensor([[1, 2]])
    other = ENCODER.interests(sequences, torch.tensor([[2, 0]], dtype=torch.int32))
    known = ENCODER.interests(sequences, PROFILE)
    assert bool(((other - known).abs().amax(2) > 1e-4).all())
    past = ENCODER.interests(sequences, torch.tensor([[1, -5]], dtype=torch.int32))
    assert torch.equal(past, known)


@torch.inference_mode()
def test_without_clicks_the_interest_is_the_profiles() -> None:
    empty = torch.zeros(1, CONFIG.sequence_length, dtype=torch.long)
    assert torch.allclose(ENCODER.latest(empty, PROFILE), after([1])[:1], atol=1e-6)
    assert ENCODER.interests(torch.zeros(1, 0, dtype=torch.long), PROFILE).shape == (1, 1, CONFIG.dim)


@torch.inference_mode()
def test_items_past_the_catalogue_are_clicks_on_something_rare() -> None:
    tokens, categories = ENCODER.identify(torch.tensor([[NUM_ITEMS + 1, -1, 10**12, 1]]))
    assert tokens.tolist() == [[1, 1, 1, 2]]
    assert categories.tolist() == [[0, 0, 0, 1]]
    assert torch.isfinite(ENCODER.latest(torch.tensor([[0, 0, 10**12]]), PROFILE)).all()


@torch.inference_mode()
def test_a_batch_answers_as_its_users_alone() -> None:
    random = np.random.default_rng(1)
    sequences = torch.from_numpy(random.integers(0, NUM_ITEMS + 1, (7, CONFIG.sequence_length)))
    profiles = torch.from_numpy(random.integers(0, 2, (7, 2)).astype(np.int32))
    together = ENCODER.latest(sequences, profiles)
    for user in range(7):
        assert torch.allclose(
            ENCODER.latest(sequences[user : user + 1], profiles[user : user + 1])[0], together[user], atol=1e-6
        )


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="dim: found 10, expected a multiple of num_heads = 4"):
        InterestConfig(dim=10)
