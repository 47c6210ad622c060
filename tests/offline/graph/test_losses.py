import math

import pytest
import torch

from serendipity.offline.graph.losses import (
    contrast_loss,
    ranking_loss,
    reconstruction_loss,
    squared_length,
    translation_loss,
    with_sign_noise,
)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_ranking_loss_is_the_mean_log_likelihood_of_the_order() -> None:
    users = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    found = ranking_loss(users, torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
    # Scores 3 over 2, and 0 over 2.
    expected = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(2.0))) / 2
    assert float(found) == pytest.approx(expected)


def test_squared_length_is_half_the_squares_a_row() -> None:
    assert float(squared_length(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.0]]))) == pytest.approx(3.5)


def test_contrast_loss_matches_its_equation() -> None:
    one = [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
    other = [[2.0, 1.0], [1.0, 3.0], [-1.0, 1.0]]
    expected = 0.0
    for i in range(3):
        exps = [math.exp(cosine(one[i], other[j]) / 0.5) for j in range(3)]
        expected -= math.log(exps[i] / sum(exps)) / 3
    assert float(contrast_loss(torch.tensor(one), torch.tensor(other), 0.5)) == pytest.approx(expected, rel=1e-5)


def test_reconstruction_loss_matches_its_equation_and_leaves_its_target_alone() -> None:
    found = torch.tensor([[1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    target = torch.tensor([[1.0, 1.0], [2.0, 0.0]], requires_grad=True)
    loss = reconstruction_loss(found, target, 3.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((1 - math.sqrt(0.5)) ** 3, rel=1e-5)
    assert found.grad is not None
    assert target.grad is None


def test_translation_loss_prefers_the_right_tail() -> None:
    head, relation = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    tail, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]])
    # Squared distances 1 and 4.
    assert float(translation_loss(head, relation, tail, other)) == pytest.approx(math.log(1 + math.exp(-3.0)))


def test_sign_noise_is_as_long_as_told_and_leaves_signs_alone() -> None:
    vectors = torch.tensor([[1.0, -2.0, 0.5], [-1.0, -1.0, 3.0]])
    noisy = with_sign_noise(vectors, 0.1, torch.Generator().manual_seed(0))
    torch.testing.assert_close((noisy - vectors).norm(dim=1), torch.tensor([0.1, 0.1]))
    assert torch.equal(noisy.sign(), vectors.sign())
    assert ((noisy - vectors) * vectors.sign() >= 0).all()
