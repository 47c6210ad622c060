"""Constrained decoding: of a language model's next tokens, only those that keep its answer inside a JSON schema.

Stands alone: it needs torch, transformers and llguidance, and nothing of this package, so that Triton's Python, where
serendipity is not installed, can load a copy of this file placed beside a model.py (`import constraint`).

    schema = JsonConstraint(tokenizer, answer_schema(…), vocab_size=model.config.vocab_size, eos_token_ids=[2])
    model.generate(**batch, logits_processor=[schema.decoding([True] * batch_size)])
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

_AS_JSON_DUMPS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space as `json.dumps` writes it, and nowhere else: a model that may, writes spaces until it is cut off."""

_SILENT = 0
"""llguidance's log level: it writes to standard error otherwise."""


class ConstraintError(Exception):
    """A schema or a tokenizer cannot be used for constrained decoding: says which, and why."""


@dataclass(frozen=True)
class Distinct:
    """A text field of the answer's objects and the values it may take, each once."""

    field: str
    values: Sequence[str]

    def without(self, names: Collection[str]) -> Distinct:
        """Take values away."""
        return Distinct(self.field, [value for value in self.values if value not in names])

    def left(self, written: str) -> tuple[str, list[str]] | None:
        """Where an answer stands inside the field: what it has of the value, and the values not used; else None."""
        opening = f'{json.dumps(self.field)}: "'
        *_, last = before = written.split(opening)
        if len(before) == 1 or '"' in last:
            return None
        used = {part.partition('"')[0] for part in before[1:-1]}
        return last, [value for value in self.values if value not in used]


class JsonConstraint:
    """A JSON schema compiled for a tokenizer; made once (half a second), then used for any number of batches.

    tokenizer: a fast tokenizer of transformers that covers every byte (byte-level, or with byte fallback).
    schema: JSON schema with an answer. vocab_size: columns of the model's logits, at least the tokenizer's.
    eos_token_ids: what ends an answer, at least one. distinct: a field whose values may occur once an answer, which a
    schema cannot say. Raises ConstraintError.
    """

    def __init__(
        self,
        tokenizer: Any,
        schema: Mapping[str, Any],
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        distinct: Distinct | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._distinct = distinct
        self._eos = list(eos_token_ids)
        if not self._eos:
            raise ConstraintError("eos_token_ids: found none, expected the token that ends an answer")
        try:
            self._tokens = from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=self._eos)
        except (ValueError, TypeError) as error:
            raise ConstraintError(f"tokenizer {type(tokenizer).__name__}: cannot be constrained: {error}") from error
        self._start = self._compiled(schema)

    def with_schema(self, schema: Mapping[str, Any]) -> JsonConstraint:
        """Compile another schema for the same tokenizer (milliseconds). Raises ConstraintError."""
        other = copy(self)
        other._start = self._compiled(schema)
        return other

    def decoding(self, rows: Sequence[bool], excluded: Sequence[Collection[str]] | None = None) -> ConstrainedDecoding:
        """Begin a batch. rows: for each row of the batch, whether it is constrained; excluded: values of the distinct
        field that it must not take, while it has others to choose from."""
        matchers = [self._start.deep_copy() if row else None for row in rows]
        distinct = [self._distinct] * len(rows)
        if self._distinct is not None and excluded is not None:
            distinct = [self._distinct.without(names) for names in excluded]
        return ConstrainedDecoding(matchers, self._eos, self._tokenizer, distinct)

    def _compiled(self, schema: Mapping[str, Any]) -> LLMatcher:
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_AS_JSON_DUMPS)
        except (ValueError, TypeError) as error:
            raise ConstraintError(f"JSON schema: cannot be decoded: {error}") from error
        matcher = LLMatcher(self._tokens, grammar, log_level=_SILENT)
        if matcher.is_error():
            raise ConstraintError(f"JSON schema: cannot be decoded: {matcher.get_error().splitlines()[0]}")
        return matcher


class ConstrainedDecoding:
    """Logits processor of one call of `generate` (greedy or sampling, not beams): it follows what each row writes.

    A row that is complete may only end. So may a row whose grammar exceeds llguidance's limits: its answer is then no
    whole JSON, which who reads it finds out, and the other rows of the batch are not harmed.
    """

    def __init__(
        self,
        matchers: Sequence[LLMatcher | None],
        eos_token_ids: Sequence[int],
        tokenizer: Any,
        distinct: Sequence[Distinct | None],
    ) -> None:
        self._matchers = matchers
        self._eos = list(eos_token_ids)
        self._tokenizer = tokenizer
        self._distinct = distinct
        self._start: int | None = None
        self._length: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores of what may not follow to −∞. input_ids: [B, T] int64; scores: [B, vocab_size] float."""
        if len(self._matchers) != len(input_ids):
            raise ValueError(f"rows: found {len(input_ids)}, expected {len(self._matchers)}")
        if self._length is not None:
            for matcher, written in zip(self._matchers, input_ids[:, self._length :].tolist(), strict=True):
                if matcher is not None and not matcher.is_stopped():
                    matcher.consume_tokens(written)
        self._length = input_ids.shape[1]
        self._start = self._length if self._start is None else self._start
        allowed = self._allowed(scores.shape[1], scores.device)
        for row, distinct in enumerate(self._distinct):
            if distinct is not None and self._matchers[row] is not None:
                self._forbid_used(allowed[row], input_ids[row, self._start :].tolist(), distinct)
        return scores.masked_fill(~allowed, -torch.inf)

    def _forbid_used(self, allowed: torch.Tensor, written: list[int], distinct: Distinct) -> None:
        """Take away, inside the distinct field, the tokens that lead to nothing but used values. allowed: [vocab]."""
        found = distinct.left(self._decoded(written))
        if found is None:
            return
        begun, values = found
        tokens = allowed.nonzero().flatten().tolist()
        leading = []
        for token in tokens:
            value, quote, _ = (begun + self._decoded([token])).partition('"')
            leads = value in values if quote else any(other.startswith(value) for other in values)
            # A token may be a part of a character: what it leads to shows later.
            leading.append(leads or "\ufffd" in value)
        # When all are used up the schema alone decides.
        if any(leading):
            allowed[[token for token, leads in zip(tokens, leading, strict=True) if not leads]] = False

    def _decoded(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _allowed(self, vocab_size: int, device: torch.device) -> torch.Tensor:
        """Which tokens may follow. Returns [B, vocab_size] bool."""
        num_bytes = (vocab_size + 7) // 8
        anything = b"\xff" * num_bytes
        masks = [anything if matcher is None else self._mask(matcher, num_bytes) for matcher in self._matchers]
        # Sent as bits: an eighth of the bytes to a GPU.
        packed = torch.frombuffer(bytearray(b"".join(masks)), dtype=torch.uint8).view(len(masks), num_bytes).to(device)
        bits = torch.arange(8, device=device, dtype=torch.uint8)
        return ((packed.unsqueeze(-1) >> bits) & 1).bool().flatten(1)[:, :vocab_size]

    def _mask(self, matcher: LLMatcher, num_bytes: int) -> bytes:
        if not matcher.is_stopped():
            mask: bytes = matcher.compute_bitmask()
            # Computing it may meet a limit, which stops the matcher.
            if not matcher.is_stopped():
                return mask[:num_bytes]
        ends = bytearray(num_bytes)
        for token in self._eos:
            ends[token // 8] |= 1 << token % 8
        return bytes(ends)
