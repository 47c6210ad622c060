"""The group encoder as an exported program (torch.export), and back."""

from __future__ import annotations

from pathlib import Path

import torch

from serendipity.groups.model import GROUP_ENCODER, PROFILE, SEQUENCE
from serendipity.offline.export import ExportError, export_program
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.group_encoder import GroupEncoder
from serendipity.offline.groups.interest_encoder import InterestEncoder, Vocabulary
from serendipity.offline.groups.rq_vae import RqVae


def export_group_encoder(encoder: GroupEncoder, sequence_length: int, profile_width: int, directory: Path) -> str:
    """Write group_encoder.pt2 below a directory and return its fingerprint.

    Inputs and outputs are those of serendipity.groups.model, in the order sequence, profile → csid, group_id. Raises
    ExportError when the program answers differently from the module.
    """
    # A user without clicks, and one of as many as fit, of the first rows of the catalogue.
    rows = torch.arange(1, sequence_length + 1) % len(encoder.interest.tokens)
    sequence = torch.stack([torch.zeros_like(rows), rows])
    profile = torch.zeros(2, profile_width, dtype=torch.int32)
    return export_program(encoder, (sequence, profile), directory / GROUP_ENCODER, (SEQUENCE, PROFILE))


def read_group_encoder(path: Path, config: GroupsConfig) -> GroupEncoder:
    """Make the encoder again from its exported program, which holds all weights. Raises ExportError."""
    try:
        state = torch.export.load(path).state_dict
    except Exception as error:  # torch raises whatever its deserializer meets
        raise ExportError(f"{path}: not an exported program ({error})") from error
    tokens, categories = state["interest.tokens"], state["interest.categories"]
    vocabulary = Vocabulary(
        tokens,
        categories,
        len(state["interest.token_embedding.weight"]),
        len(state["interest.category_embedding.weight"]),
    )
    network = InterestEncoder(vocabulary, state["interest.field_sizes"].tolist(), config.interest)
    encoder = GroupEncoder(network, RqVae(config.interest.dim, config.quantizer), state["centroids"])
    encoder.load_state_dict(state)
    return encoder.eval()
