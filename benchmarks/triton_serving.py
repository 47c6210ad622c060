"""A Triton to be measured: one that runs already, or one started for a model alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serendipity.tools.serving.triton_server import launch


@contextmanager
def serving(url: str | None, place: Callable[[Path], object], load: Callable[[str], object]) -> Iterator[str]:
    """Give the HTTP address of a Triton: `url`, or that of one started on a repository that `place` fills.

    load: loads its models, given its gRPC address.
    """
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="serendip-bench-") as scratch:
        place(Path(scratch))
        with launch(Path(scratch)) as triton:
            load(triton.grpc_url)
            yield triton.url


def batch_sizes(asked: Sequence[int] | None, most: int) -> list[int]:
    """List the sizes of batches to be measured: those asked for, or powers of two up to a model's max_batch.

    Raises ValueError for one that the model does not take.
    """
    if asked is None:
        return [size for size in (1, 8, 16, 32, 64, 128) if size < most] + [most]
    for size in asked:
        if not 1 <= size <= most:
            raise ValueError(f"--batches: found {size}, expected 1 to {most}, the model's max_batch")
    return sorted(set(asked))
