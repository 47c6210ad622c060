"""Constrained decoding: of a language model's next tokens, only those that keep its answer inside a JSON schema.

Stands alone: it needs torch, transformers and llguidance, and nothing of this package, so that Triton's Python, where
serendipity is not installed, can load a copy of this file placed beside a model.py (`import constraint`).

    schema = JsonConstraint(tokenizer, answer_schema(…), vocab_size=model.config.vocab_size, eos_token_ids=[2])
    model.generate(**batch, logits_processor=[schema.decoding([True] * batch_size)])
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

_AS_JSON_DUMPS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space as `json.dumps` writes it, and nowhere else: a model that may, writes spaces until it is cut off."""

_SILENT = 0
"""llguidance's log level: it writes to standard error otherwise."""

_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)
"""Of a byte, lowest first."""


class ConstraintError(Exception):
    """A schema or a tokenizer cannot be used for constrained decoding: says which, and why."""


@dataclass(frozen=True)
class Distinct:
    """A text field of the answer's objects and the values that the schema lets it take, each of them once an answer."""

    field: str
    values: Sequence[str]


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
        self._eos = list(eos_token_ids)
        if not self._eos:
            raise ConstraintError("eos_token_ids: found none, expected the token that ends an answer")
        try:
            tokens = from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=self._eos)
        except (ValueError, TypeError) as error:
            raise ConstraintError(f"tokenizer {type(tokenizer).__name__}: cannot be constrained: {error}") from error
        self._start = _compiled(tokens, schema)
        self._tokens = [tokens.decode_bytes([token]) for token in range(vocab_size)]
        self._values = None if distinct is None else _Values(distinct, self._tokens)

    def decoding(self, rows: Sequence[bool], excluded: Sequence[Collection[str]] | None = None) -> ConstrainedDecoding:
        """Begin a batch. rows: for each row of the batch, whether it is constrained; excluded: values of the distinct
        field that it must not take, while it has others to choose from."""
        barred = excluded or [()] * len(rows)
        return ConstrainedDecoding(
            [self._row(names) if row else None for row, names in zip(rows, barred, strict=True)], self._eos
        )

    def _row(self, excluded: Collection[str]) -> _Row:
        return _Row(self._start.deep_copy(), self._tokens, self._values, excluded)


class ConstrainedDecoding:
    """Logits processor of one call of `generate` (greedy or sampling, not beams): it follows what each row writes.

    A row that is complete may only end. So may a row whose grammar exceeds llguidance's limits: its answer is then no
    whole JSON, which who reads it finds out, and the other rows of the batch are not harmed.
    """

    def __init__(self, rows: Sequence[_Row | None], eos_token_ids: Sequence[int]) -> None:
        self._rows = rows
        self._ends = sum(1 << token for token in set(eos_token_ids))
        self._length: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores of what may not follow to −∞. input_ids: [B, T] int64; scores: [B, vocab_size] float."""
        if len(self._rows) != len(input_ids):
            raise ValueError(f"rows: found {len(input_ids)}, expected {len(self._rows)}")
        if self._length is not None:
            for row, written in zip(self._rows, input_ids[:, self._length :].tolist(), strict=True):
                if row is not None:
                    row.write(written)
        self._length = input_ids.shape[1]
        return scores.masked_fill(self._barred(scores.shape[1], scores.device), -torch.inf)

    def _barred(self, vocab_size: int, device: torch.device) -> torch.Tensor:
        """Which tokens may not follow. Returns [B, vocab_size] bool."""
        num_bytes = (vocab_size + 7) // 8
        anything = (1 << 8 * num_bytes) - 1
        masks = [anything if row is None else (row.allowed() or self._ends) & anything for row in self._rows]
        # Sent as bits: an eighth of the bytes to a GPU.
        content = bytearray(b"".join([mask.to_bytes(num_bytes, "little") for mask in masks]))
        packed = torch.frombuffer(content, dtype=torch.uint8).to(device).view(len(masks), num_bytes, 1)
        return (packed & _BITS.to(device) == 0).flatten(1)[:, :vocab_size]


class _Row:
    """What one row has written and what may follow. Sets of tokens are ints, with a bit for each."""

    def __init__(
        self, matcher: LLMatcher, tokens: Sequence[bytes], values: _Values | None, excluded: Collection[str]
    ) -> None:
        self._matcher, self._tokens, self._values = matcher, tokens, values
        self._left = 0 if values is None else values.without(excluded)
        self._text = b""

    def write(self, tokens: Sequence[int]) -> None:
        """Go on by tokens; what follows the end of an answer is passed over."""
        if self._matcher.is_stopped():
            return
        self._matcher.consume_tokens(tokens)
        if self._values is not None:
            self._text, whole = self._values.read(b"".join([self._text, *[self._tokens[token] for token in tokens]]))
            self._left &= ~whole

    def allowed(self) -> int:
        """Tokens that may follow; 0 for an answer that must end."""
        if self._matcher.is_stopped():
            return 0
        allowed = int.from_bytes(self._matcher.compute_bitmask(), "little")
        # Computing it may meet a limit, which stops the matcher.
        if self._matcher.is_stopped():
            return 0
        # When all values are taken the schema alone decides.
        if self._values is None or not self._left:
            return allowed
        return allowed & self._values.leading(self._text, self._left)


class _Values:
    """The values of a distinct field in the tokens of a tokenizer. Sets of values are ints, with a bit for each.

    Of what an answer has written one text matters: from the field's opening on or, outside the field, what may become
    an opening. Where tokens lead from such a text is worked out once, for all rows and batches.
    """

    def __init__(self, distinct: Distinct, tokens: Sequence[bytes]) -> None:
        self._opening = f'{json.dumps(distinct.field, ensure_ascii=False)}: "'.encode()
        # A value, whole or not (then the text ends); or what may become an opening, at the end of the text.
        begun = b"|".join(re.escape(self._opening[:length]) for length in range(len(self._opening) - 1, 0, -1))
        value = re.escape(self._opening) + rb'((?:[^"\\]|\\.)*("|\\?\Z))'
        self._field = re.compile(value + rb"|(?:%s)\Z" % begun, re.DOTALL)
        self._bits = {value: 1 << number for number, value in enumerate(distinct.values)}
        self._values = {_spelled(value): bit for value, bit in self._bits.items()}
        self._every = (1 << len(tokens)) - 1
        self._known: dict[bytes, tuple[int, list[tuple[int, int, list[int]]]]] = {}
        # A token that goes on behind a quote may end a value, or open the field and begin one.
        self._going_on = [(token, text) for token, text in enumerate(tokens) if b'"' in text[:-1]]
        self._others: dict[bytes, list[int]] = {}
        for token, text in enumerate(tokens):
            if b'"' not in text[:-1]:
                self._others.setdefault(text, []).append(token)

    def without(self, names: Collection[str]) -> int:
        """All values but some."""
        return sum(bit for value, bit in self._bits.items() if value not in names)

    def read(self, text: bytes) -> tuple[bytes, int]:
        """Take values that are whole from a text. Returns the text that matters from here, and the values."""
        whole = 0
        for place in self._field.finditer(text):
            if place[2] != b'"':
                return text[place.start() :], whole
            whole |= self._values.get(place[1], 0)
        return b"", whole

    def leading(self, text: bytes, left: int) -> int:
        """Tokens that may follow a text: they write nothing of a value, or of one that is left."""
        if text not in self._known:
            self._known[text] = self._from(text)
        tokens, leading = self._known[text]
        return tokens ^ sum(
            1 << token
            for token, first, others in leading
            if not first & left or (others and not _are_of(others, left & ~first))
        )

    def _from(self, text: bytes) -> tuple[int, list[tuple[int, int, list[int]]]]:
        """Work out where tokens lead from a text. Returns those that may follow it while every value is left; and of
        those among them that write values, whole or begun, which the first may be, and which any others may be."""
        found = {token: values for token, more in self._going_on if (values := self._in(text + more))}
        aside = 0
        if text.startswith(self._opening):
            begun = text[len(self._opening) :]
            for value, bit in self._values.items():
                if value.startswith(begun):
                    for end in range(len(begun) + 1, len(value) + 1):
                        for token in self._others.get(value[len(begun) : end], ()):
                            found.setdefault(token, [0])[0] |= bit
        else:
            aside = ~sum(1 << token for token in found) & self._every
        leading = [(token, values[0], values[1:]) for token, values in found.items() if values[0]]
        return aside + sum(1 << token for token, _, _ in leading), leading

    def _in(self, text: bytes) -> list[int]:
        """Find the values in a text, each as those it may be: one if it is whole, any that begin so if not."""
        return [
            self._values.get(place[1], 0)
            if place[2] == b'"'
            else sum(bit for value, bit in self._values.items() if value.startswith(place[1]))
            for place in self._field.finditer(text)
            if place[1]
        ]


def _are_of(values: Sequence[int], left: int) -> bool:
    """Tell whether values, one after another, may each be one that is left, as long as any is."""
    for value in values:
        if left and not value & left:
            return False
        left &= ~value
    return True


def _spelled(value: str) -> bytes:
    """Spell a value as the grammar writes it (DEL as an escape, unlike `json.dumps`), with the quote that ends it: so
    none is the beginning of another."""
    return json.dumps(value, ensure_ascii=False)[1:].replace("\x7f", "\\u007f").encode()


def _compiled(tokens: Any, schema: Mapping[str, Any]) -> LLMatcher:
    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_AS_JSON_DUMPS)
    except (ValueError, TypeError) as error:
        raise ConstraintError(f"JSON schema: cannot be decoded: {error}") from error
    matcher = LLMatcher(tokens, grammar, log_level=_SILENT)
    if matcher.is_error():
        raise ConstraintError(f"JSON schema: cannot be decoded: {matcher.get_error().splitlines()[0]}")
    return matcher
