"""How many threads PyTorch and BLAS may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """Run the block with `number` threads in PyTorch and BLAS, and restore what was before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(limits=number, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
