import numpy as np
import pytest
import torch

from serendipity.offline.graph.config import ReconstructionConfig
from serendipity.offline.graph.interest_graph import View
from serendipity.offline.graph.masking import Reconstruction, masked_share
from serendipity.offline.graph.propagation import sparse_tensor
from tests.offline.graph.small_graph import tiny


@pytest.mark.parametrize(
    ("schedule", "epoch", "expected"),
    [
        ("exponential", 0, 0.1),
        ("exponential", 10, 0.2),
        ("exponential", 20, 0.4),
        ("exponential", 500, 0.4),
        ("linear", 0, 0.1),
        ("linear", 5, 0.175),
        ("linear", 20, 0.4),
        ("linear", 500, 0.4),
    ],
)
def test_the_masked_share_follows_its_schedule(schedule: str, epoch: int, expected: float) -> None:
    config = ReconstructionConfig.model_validate(
        {"schedule": schedule, "first_share": 0.1, "last_share": 0.4, "ramp_epochs": 20}
    )
    assert masked_share(config, epoch) == pytest.approx(expected)


def _lose(embeddings: torch.Tensor, interests: np.ndarray, config: ReconstructionConfig) -> torch.Tensor:
    torch.manual_seed(0)
    adjacency = sparse_tensor(tiny().adjacency(View.WHOLE), torch.device("cpu"))
    found: torch.Tensor = Reconstruction(4, config)(adjacency, embeddings, interests, 0, np.random.default_rng(0))
    return found


def test_hidden_embeddings_get_no_gradient_and_their_neighbours_do() -> None:
    embeddings = torch.randn(11, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    config = ReconstructionConfig(first_share=1.0, last_share=1.0, replaced_share=0.0)
    _lose(embeddings, np.array([8, 9]), config).backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert not embeddings.grad[8:10].any()
    assert embeddings.grad[:3].any(dim=1).all()


def test_what_is_hidden_cannot_be_seen_from_the_answer() -> None:
    start = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))
    config = ReconstructionConfig(first_share=1.0, last_share=1.0, replaced_share=0.0, power=1.0)
    # The same direction, eight times as long: the target of the cosine is unchanged, everything else would show it.
    longer = start.clone()
    longer[8:10] *= 8.0
    assert torch.equal(_lose(start, np.array([8, 9]), config), _lose(longer, np.array([8, 9]), config))


def test_replaced_interests_show_what_another_interest_is() -> None:
    start = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))
    config = ReconstructionConfig(first_share=1.0, last_share=1.0, replaced_share=1.0, power=1.0)
    longer = start.clone()
    longer[8:10] *= 8.0
    assert not torch.equal(_lose(start, np.array([8, 9]), config), _lose(longer, np.array([8, 9]), config))
