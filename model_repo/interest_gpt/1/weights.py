"""A language model's weights as a server keeps them.

Stands alone: needs torch.
"""

from __future__ import annotations

from typing import Any

import torch


def check_room(model: Any, tokens: int, what: str) -> None:
    """Raise ValueError where a model has fewer positions than tokens are wanted. what: they are made of."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and tokens > most:
        raise ValueError(f"{what}: found {tokens}, expected at most the model's {most} positions")


def in_memory(model: Any, device: torch.device) -> Any:
    """Copy a model out of the files that safetensors maps, and make it ready to answer on `device`."""
    # A file changed in place would change the running model, a cut one kill it.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model.eval().to(device)
