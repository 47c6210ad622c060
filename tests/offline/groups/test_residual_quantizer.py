import pytest
import torch

from serendipity.offline.groups.residual_quantizer import ResidualQuantizer, nearest


def quantizer_of(codebooks: list[list[list[float]]], **settings: float) -> ResidualQuantizer:
    found = torch.tensor(codebooks)
    quantizer = ResidualQuantizer(*found.shape, **settings)
    quantizer.codebooks.copy_(found)
    quantizer.sums.copy_(found * quantizer.usage.unsqueeze(2))
    return quantizer


def test_each_layer_takes_the_code_nearest_to_what_the_ones_before_left_over() -> None:
    quantizer = quantizer_of([[[4.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, -1.0]]])
    # (4.8, 0.3): layer 1 (4, 0), left (0.8, 0.3); layer 2 (1, 0). (0.2, 3): (0, 4), left (0.2, −1); (0, −1).
    codes, quantized = quantizer(torch.tensor([[4.8, 0.3], [0.2, 3.0]]))
    assert codes.tolist() == [[0, 0], [1, 1]]
    assert quantized.tolist() == [[5.0, 0.0], [0.0, 3.0]]


def test_the_lowest_code_wins_among_equally_near_ones() -> None:
    assert nearest(torch.tensor([[0.0]]), torch.tensor([[1.0], [-1.0]])).tolist() == [0]


def test_codes_move_to_the_moving_average_of_their_residuals() -> None:
    quantizer = quantizer_of([[[0.0], [10.0]]], decay=0.5, dead_below=0.0)
    # Shares 3/4 and 1/4; usage lerps from 1/2: 5/8 and 3/8. Sums: (0 + 3/4) / 2 and (5 + 11/4) / 2.
    quantizer.learn(torch.tensor([[1.0], [1.0], [1.0], [11.0]]), torch.Generator())
    assert quantizer.usage[0].tolist() == pytest.approx([5 / 8, 3 / 8])
    assert quantizer.codebooks[0, :, 0].tolist() == pytest.approx([3 / 8 / (5 / 8), 31 / 8 / (3 / 8)])


def test_later_layers_learn_from_residuals() -> None:
    quantizer = quantizer_of([[[10.0], [-10.0]], [[1.0], [-1.0]]], decay=0.5, dead_below=0.0)
    quantizer.learn(torch.tensor([[12.0], [12.0]]), torch.Generator())
    # Layer 2 is given 12 − 10 = 2: usage 3/4, sum 1/2 · 1/2 + 1/2 · 2.
    assert quantizer.codebooks[1, 0].item() == pytest.approx(1.25 / 0.75)


def test_a_dead_code_is_revived_at_a_residual_of_the_batch() -> None:
    quantizer = quantizer_of([[[0.0], [1000.0]]], decay=0.5, dead_below=0.2)
    batch = torch.tensor([[1.0], [2.0], [3.0]])
    revived = sum(quantizer.learn(batch, torch.Generator().manual_seed(0)) for _ in range(8))
    assert revived >= 1
    assert quantizer.codebooks.max() < 4
    assert set(quantizer(batch)[0].flatten().tolist()) == {0, 1}


def test_a_code_in_use_is_not_revived() -> None:
    quantizer = quantizer_of([[[0.0], [5.0]]], decay=0.5, dead_below=0.2)
    assert not any(quantizer.learn(torch.tensor([[0.0], [5.0]]), torch.Generator()) for _ in range(20))


def test_codebooks_begin_at_the_centres_of_what_is_left_over() -> None:
    vectors = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    quantizer = ResidualQuantizer(2, 2, 1)
    quantizer.start(vectors, seed=0)
    assert sorted(quantizer.codebooks[0, :, 0].tolist()) == pytest.approx([1.0, 11.0])
    assert sorted(quantizer.codebooks[1, :, 0].tolist()) == pytest.approx([-1.0, 1.0])
    assert torch.allclose(quantizer(vectors)[1], vectors)


def test_fewer_distinct_vectors_than_codes_are_quantised_exactly() -> None:
    vectors = torch.tensor([[1.0], [1.0], [5.0]])
    quantizer = ResidualQuantizer(1, 8, 1)
    quantizer.start(vectors, seed=0)
    assert torch.allclose(quantizer(vectors)[1], vectors)
