import math

import torch

from serendipity.offline.towers.losses import click_loss, interest_contrast, user_item_contrast


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_click_loss_is_the_weighted_cross_entropy() -> None:
    scores = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    weights = torch.tensor([[0.0, 2.0, 0.5], [1.0, 0.0, 0.0]])
    found = click_loss(scores, weights, torch.tensor([0, 4]), torch.tensor([1.0, 0.25]))
    expected = 2 * softplus(-2.0) + 0.5 * softplus(0.5) + softplus(0.0) + softplus(-1.0) + 0.25 * softplus(-3.0)
    assert math.isclose(float(found), expected, rel_tol=1e-6)


def test_user_item_contrast_matches_its_equation_and_spares_equal_items() -> None:
    users = [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
    items = [[2.0, 1.0], [1.0, 3.0], [2.0, 1.0]]
    found = user_item_contrast(torch.tensor(users), torch.tensor(items), torch.tensor([7, 8, 7]), temperature=0.5)
    others = {0: [0, 1], 1: [0, 1, 2], 2: [1, 2]}
    expected = 0.0
    for i, user in enumerate(users):
        exps = {j: math.exp(cosine(user, items[j]) / 0.5) for j in others[i]}
        expected -= math.log(exps[i] / sum(exps.values())) / 3
    assert math.isclose(float(found), expected, rel_tol=1e-5)


def test_interest_contrast_matches_its_equation() -> None:
    vectors = [[1.0, 0.0], [1.0, 0.5], [0.0, 1.0], [-1.0, 1.0]]
    nodes = [3, 3, 9, 4]
    found = interest_contrast(torch.tensor(vectors), torch.tensor(nodes), temperature=0.2)
    expected = 0.0
    for i, p in ((0, 1), (1, 0)):
        exps = {j: math.exp(cosine(vectors[i], vectors[j]) / 0.2) for j in range(4) if j != i}
        expected -= math.log(exps[p] / sum(exps.values())) / 2
    assert math.isclose(float(found), expected, rel_tol=1e-5)


def test_contrasts_without_pairs_are_zero_and_have_gradients() -> None:
    vectors = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = interest_contrast(vectors, torch.tensor([1, 2]), 0.1) + user_item_contrast(
        vectors[:1], vectors[1:], torch.tensor([1]), 0.1
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert vectors.grad is not None
    assert float(vectors.grad.abs().sum()) == 0.0


def test_a_user_vector_near_its_item_has_the_smaller_contrast() -> None:
    items = torch.eye(3)
    rows = torch.arange(3)
    assert user_item_contrast(items, items, rows, 0.1) < user_item_contrast(items.roll(1, 0), items, rows, 0.1)
