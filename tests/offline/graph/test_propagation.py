import numpy as np
import pytest
import torch

from serendipity.offline.graph.interest_graph import View
from serendipity.offline.graph.propagation import mean_of_layers, sparse_tensor
from tests.offline.graph.small_graph import tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation_is_the_mean_of_what_each_layer_brings(layers: int) -> None:
    matrix = tiny().adjacency(View.WHOLE)
    start = torch.randn(matrix.shape[0], 4, generator=torch.Generator().manual_seed(0))
    found = mean_of_layers(sparse_tensor(matrix, CPU), start, layers)
    dense, layer = matrix.toarray(), start.numpy()
    total = layer.copy()
    for _ in range(layers):
        layer = dense @ layer
        total += layer
    np.testing.assert_allclose(found.numpy(), total / (layers + 1), rtol=1e-5, atol=1e-6)


def test_the_symmetric_backward_is_that_of_autograd() -> None:
    matrix = tiny().adjacency(View.WHOLE)
    ours = torch.randn(matrix.shape[0], 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(matrix.shape[0], 4, generator=torch.Generator().manual_seed(2))
    (mean_of_layers(sparse_tensor(matrix, CPU), ours, 3).sin() * weights).sum().backward()
    theirs = ours.detach().clone().requires_grad_()
    dense = torch.from_numpy(matrix.toarray())
    layers = [theirs]
    for _ in range(3):
        layers.append(dense @ layers[-1])
    (torch.stack(layers).mean(dim=0).sin() * weights).sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
