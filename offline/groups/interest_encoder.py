"""The causal self-attention network: kept clicks and profile → the long-term interest after each click.

Attention is local: a layer sees a click and the window − 1 clicks before it, and the profile, which stands in front of
every sequence. Positions are learned as a bias by head and distance. So the interest after a click depends on the
latest num_layers · window clicks alone, wherever they stand in the tensor: one pass over a history of any length gives
exactly what the exported encoder, fed those clicks, would have answered at every moment of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serendipity.offline.groups.config import InterestConfig
from serendipity.offline.groups.kept_histories import Stretches

PADDING, RARE = 0, 1
"""Tokens of no click, and of items without an embedding of their own."""


@dataclass(frozen=True)
class Vocabulary:
    """What the network knows items by.

    tokens, categories: [n + 1] int64, by catalogue row + 1: token (PADDING for entry 0, RARE for items without an
    embedding of their own) and number of the top-level category. num_tokens: with those two; num_categories: with 0.
    """

    tokens: Tensor
    categories: Tensor
    num_tokens: int
    num_categories: int


class InterestEncoder(nn.Module):
    """L layers of local causal self-attention (arXiv 2508.00450, eq. 1, 4 and 5).

    profile_sizes: values of each profile field, 0 (unknown) included; one 1 where there are no fields.
    """

    tokens: Tensor
    categories: Tensor
    field_offsets: Tensor
    field_sizes: Tensor
    causal: Tensor

    def __init__(self, vocabulary: Vocabulary, profile_sizes: Sequence[int], config: InterestConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.register_buffer("tokens", vocabulary.tokens)
        self.register_buffer("categories", vocabulary.categories)
        sizes = torch.tensor(list(profile_sizes))
        self.register_buffer("field_sizes", sizes)
        self.register_buffer("field_offsets", sizes.cumsum(0) - sizes)
        self.token_embedding = nn.Embedding(vocabulary.num_tokens, config.dim)
        self.category_embedding = nn.Embedding(vocabulary.num_categories, config.dim)
        self.field_embedding = nn.Embedding(int(sizes.sum()), config.dim)
        self.profile_bias = nn.Parameter(torch.zeros(config.dim))
        for embedding in (self.token_embedding, self.category_embedding, self.field_embedding):
            nn.init.normal_(embedding.weight, std=config.dim**-0.5)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.window = config.window
        distances = _distances(config.window)
        self.register_buffer("causal", (distances >= 0) & (distances < config.window), persistent=False)

    def identify(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Look up tokens and category numbers. items: row + 1, 0 = none; rows past the catalogue are RARE."""
        rows = items.clamp(0, self.tokens.shape[0] - 1)
        known = rows == items
        return torch.where(known, self.tokens[rows], RARE), torch.where(known, self.categories[rows], 0)

    def item_vectors(self, tokens: Tensor, categories: Tensor) -> Tensor:
        """Embed items: own embedding plus that of the category, [..., d]."""
        vectors: Tensor = self.token_embedding(tokens) + self.category_embedding(categories)
        return vectors

    def forward(self, items: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        """Read sequences. items: [B, N] int64, row + 1 ascending by time, zeros anywhere; profile: [B, P] int32.

        Returns the interest before any click, [B, d], and that after each click, [B, N, d]; what stands at zeros means
        nothing.
        """
        # At least one block, empty or not.
        padding = -items.shape[1] % self.window or (0 if items.shape[1] else self.window)
        padded = F.pad(items, (padding, 0))
        tokens, categories = self.identify(padded)
        mask = self._mask(tokens != PADDING)
        embedded = self.item_vectors(tokens, categories)
        numbers = torch.minimum(profile.long().clamp(min=0), self.field_sizes - 1) + self.field_offsets
        first = self.field_embedding(numbers).sum(1) + self.profile_bias
        # The profile leads the sequence, as position 0 of [B, 1 + N, d].
        states = torch.cat([first.unsqueeze(1), embedded], 1)
        for layer in self.layers:
            states = layer(states, mask)
        states = self.norm(states)
        return states[:, 0], states[:, 1 + padding :]

    def interests(self, items: Tensor, profile: Tensor) -> Tensor:
        """Give the interest before any click and after each, [B, 1 + N, d]; arguments as of forward."""
        before, after = self(items, profile)
        return torch.cat([before.unsqueeze(1), after], 1)

    def latest(self, items: Tensor, profile: Tensor) -> Tensor:
        """Give the long-term interest: the last position, or the profile's where there is no click. [B, d].

        items: [B, N] int64 as laid out by `serendipity.groups.sequence.long_sequence`: the latest click last.
        """
        before, after = self(items, profile)
        return torch.where(items[:, -1:] != 0, after[:, -1], before)

    def _mask(self, present: Tensor) -> Tensor:
        """M of eq. 1, [B, 1, N/w, w, 2w]: 0 for a click among the latest w, −∞ for later, earlier and missing ones."""
        blocks = present.view(present.shape[0], 1, -1, self.window, 1)
        seen = _with_before(blocks).transpose(3, 4) & self.causal
        return torch.zeros(()).masked_fill(~seen, float("-inf"))


def interests_after(encoder: InterestEncoder, stretches: Stretches) -> Tensor:
    """Give the interest after the last click of each stretch, [B, d]."""
    interests = encoder.interests(torch.from_numpy(stretches.items), torch.from_numpy(stretches.profiles))
    return interests[torch.arange(len(interests)), torch.from_numpy(stretches.lengths)]


class _Layer(nn.Module):
    def __init__(self, config: InterestConfig) -> None:
        super().__init__()
        self.attention = _LocalAttention(config)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.forward_norm = nn.LayerNorm(config.dim)
        self.widen = nn.Linear(config.dim, 2 * config.dim)
        self.narrow = nn.Linear(2 * config.dim, config.dim)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        states = states + self.attention(self.attention_norm(states), mask)
        added: Tensor = self.narrow(F.gelu(self.widen(self.forward_norm(states))))
        return states + added


class _LocalAttention(nn.Module):
    """softmax(QKᵀ/√d + M)V, M = −∞ but for the profile and the latest `window` clicks, plus a learned bias."""

    distances: Tensor

    def __init__(self, config: InterestConfig) -> None:
        super().__init__()
        self.heads, self.window = config.num_heads, config.window
        self.project = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        # By distance 0 … window − 1; the last is the profile's.
        self.bias = nn.Parameter(torch.zeros(config.num_heads, config.window + 1))
        distances = _distances(config.window).clamp(0, config.window - 1)
        self.register_buffer("distances", distances, persistent=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """states: [B, 1 + N, d], the profile first, N a multiple of the window w; mask: [B, 1, N/w, w, 2w], 0 or −∞."""
        users, blocks, width = states.shape[0], mask.shape[2], states.shape[2] // self.heads
        projected = self.project(states).view(users, -1, 3, self.heads, width).permute(2, 0, 3, 1, 4)
        query, key, value = projected[0] * width**-0.5, projected[1], projected[2]  # each [B, H, 1 + N, d/H]
        shape = (users, self.heads, blocks, self.window, width)
        of_items = query[:, :, 1:].reshape(shape)
        keys = _with_before(key[:, :, 1:].reshape(shape))
        values = _with_before(value[:, :, 1:].reshape(shape))
        to_profile = of_items @ key[:, :, :1, None].transpose(3, 4) + self.bias[:, -1, None, None, None]
        to_items = of_items @ keys.transpose(3, 4) + (self.bias[:, None, self.distances] + mask)
        weights = torch.cat([to_profile, to_items], 4).softmax(4)
        mixed = weights @ torch.cat([value[:, :, :1, None].expand(-1, -1, blocks, -1, -1), values], 3)
        # The profile has nothing before it and sees itself alone.
        joined = torch.cat([value[:, :, :1], mixed.reshape(users, self.heads, -1, width)], 2)
        attended: Tensor = self.out(joined.transpose(1, 2).reshape(users, -1, self.heads * width))
        return attended


def _distances(window: int) -> Tensor:
    """Clicks from query i of a block back to its keys: the block before (0 … w − 1), and its own (w … 2w − 1)."""
    return torch.arange(window)[:, None] + window - torch.arange(2 * window)[None]


def _with_before(blocks: Tensor) -> Tensor:
    """Put the block before in front of each: [B, H, n, w, c] → [B, H, n, 2w, c]; zeros before the first."""
    return torch.cat([F.pad(blocks, (0, 0, 0, 0, 1, 0))[:, :, :-1], blocks], 3)
