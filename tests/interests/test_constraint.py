"""Constrained decoding: whatever a model prefers, what it writes is inside the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from serendipity.interests import constraint
from serendipity.interests.answer import answer_schema, read_answer, write_answer
from serendipity.interests.constraint import ConstraintError, Distinct, JsonConstraint
from tests.fixtures.tiny_language_model import make_tiny_language_model

CATEGORIES = ["TEA", "COFFEE & COCOA", 'ODD "NAMES"', "CAFÉ"]
SCHEMA = answer_schema(CATEGORIES, 2)
# A model of random weights fills whatever texts it may: answers of this schema are whole within 80 tokens.
SHORT = {
    "type": "object",
    "properties": {"category": {"enum": CATEGORIES}},
    "required": ["category"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_language_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()


def compiled(tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any]) -> JsonConstraint:
    return JsonConstraint(
        tokenizer, schema, vocab_size=len(tokenizer) + 8, eos_token_ids=[int(tokenizer.eos_token_id or 0)]
    )


def write(
    model: Any, tokenizer: PreTrainedTokenizerFast, schema: JsonConstraint, rows: list[bool], *, tokens: int, seed: int
) -> list[str]:
    prompts = tokenizer(["prompt"] * len(rows), return_tensors="pt")
    torch.manual_seed(seed)
    written = model.generate(**prompts, do_sample=True, max_new_tokens=tokens, logits_processor=[schema.decoding(rows)])
    texts: list[str] = tokenizer.batch_decode(written[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_random_weights_writes_only_what_the_schema_allows(
    model: Any, tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    texts = write(model, tokenizer, compiled(tokenizer, SHORT), [True] * 4, tokens=80, seed=seed)
    for text in texts:
        assert json.loads(text)["category"] in CATEGORIES
        assert json.dumps(json.loads(text), ensure_ascii=False) == text


def test_whole_answers_of_interests_can_be_read(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    [text] = write(model, tokenizer, compiled(tokenizer, SCHEMA), [True], tokens=900, seed=1)
    rows = json.loads(text)["interests"]
    assert 1 <= len(rows) <= 2
    assert {row["category"] for row in rows} <= set(CATEGORIES)
    assert len(read_answer(text)) == len(rows)


def test_rows_that_are_not_constrained_are_left_as_they_are(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    schema = compiled(tokenizer, SHORT)
    mixed = write(model, tokenizer, schema, [True, False], tokens=80, seed=0)
    free = write(model, tokenizer, schema, [False, False], tokens=80, seed=0)
    assert json.loads(mixed[0])["category"] in CATEGORIES
    assert not any(text.startswith('{"category"') for text in (mixed[1], *free))
    scores = torch.randn(2, len(tokenizer) + 8)
    after = schema.decoding([False, True])(torch.zeros((2, 3), dtype=torch.int64), scores)
    assert torch.equal(after[0], scores[0])
    opening = after[1].isfinite().nonzero().flatten().tolist()
    assert {tokenizer.decode([token])[0] for token in opening} == {"{"}
    assert torch.equal(after[1][opening], scores[1][opening])


def test_what_training_writes_is_what_serving_may_write(tokenizer: PreTrainedTokenizerFast) -> None:
    text = write_answer(read_answer('{"interests": [{"seed": "é", "interest": "brewing", "category": "CAFÉ"}]}'))
    schema = answer_schema(CATEGORIES, 2)
    for name in ("seed", "demand", "interest"):
        schema["properties"]["interests"]["items"]["properties"][name] = {"type": "string", "maxLength": 80}
    decoding = compiled(tokenizer, schema).decoding([True])
    ids = tokenizer(text)["input_ids"]
    for length in range(len(ids)):
        scores = decoding(torch.tensor([ids[:length]], dtype=torch.int64), torch.zeros(1, len(tokenizer) + 8))
        assert scores[0, ids[length]] == 0, tokenizer.decode(ids[:length])
    after = decoding(torch.tensor([ids]), torch.zeros(1, len(tokenizer) + 8))
    assert after.isfinite().nonzero()[:, 1].tolist() == [tokenizer.eos_token_id]


def test_a_row_that_has_ended_may_only_end(tokenizer: PreTrainedTokenizerFast) -> None:
    decoding = compiled(tokenizer, SHORT).decoding([True])
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [*tokenizer('{"category": "TEA"}')["input_ids"], eos]
    vocab_size = len(tokenizer) + 8
    for length in range(len(ids)):
        decoding(torch.tensor([ids[:length]], dtype=torch.int64), torch.zeros(1, vocab_size))
    for padding in range(1, 3):
        after = decoding(torch.tensor([ids + [pad] * padding]), torch.zeros(1, vocab_size))
        assert after.isfinite().nonzero()[:, 1].tolist() == [eos]


def test_what_cannot_be_decoded_is_refused_with_its_reason(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConstraintError, match="JSON schema: cannot be decoded: Invalid type: nonsense"):
        compiled(tokenizer, {"type": "nonsense"})
    with pytest.raises(ConstraintError, match="Unsatisfiable schema"):
        compiled(tokenizer, answer_schema([], 2))
    with pytest.raises(ConstraintError, match="vocab size too small"):
        JsonConstraint(tokenizer, SHORT, vocab_size=10, eos_token_ids=[1])
    with pytest.raises(ConstraintError, match="eos_token_ids: found none"):
        JsonConstraint(tokenizer, SHORT, vocab_size=len(tokenizer), eos_token_ids=[])
    with pytest.raises(ValueError, match="rows: found 3, expected 2"):
        compiled(tokenizer, SHORT).decoding([True, True])(torch.zeros((3, 1), dtype=torch.int64), torch.zeros(3, 5))


def test_the_file_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "constraint.py").write_bytes(Path(constraint.__file__).read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import constraint\n"
        "assert constraint.JsonConstraint and not [name for name in sys.modules if name.startswith('serendipity')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_distinct_field_takes_each_value_once_while_others_are_left(
    model: Any, tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    names = ["TEA", "TEAPOTS", "COFFEE", "CAFÉ"]
    rows = {"type": "array", "items": {**SHORT, "properties": {"category": {"enum": names}}}}
    schema = JsonConstraint(
        tokenizer,
        {**rows, "minItems": 5, "maxItems": 5},
        vocab_size=len(tokenizer) + 8,
        eos_token_ids=[int(tokenizer.eos_token_id or 0)],
        distinct=Distinct("category", names),
    )
    for text in write(model, tokenizer, schema, [True] * 4, tokens=400, seed=seed):
        found = [row["category"] for row in json.loads(text)]
        assert sorted(found[:4]) == sorted(names)
        assert found[4] in names


def test_excluded_values_are_taken_by_no_row_they_are_excluded_from(
    model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    names = ["TEA", "TEAPOTS", "COFFEE"]
    schema = JsonConstraint(
        tokenizer,
        {**SHORT, "properties": {"category": {"enum": names}}},
        vocab_size=len(tokenizer) + 8,
        eos_token_ids=[int(tokenizer.eos_token_id or 0)],
        distinct=Distinct("category", names),
    )
    prompts = tokenizer(["prompt"] * 3, return_tensors="pt")
    excluded = [["TEA", "COFFEE"], ["TEAPOTS", "COFFEE"], names]
    written = model.generate(
        **prompts, do_sample=False, max_new_tokens=80, logits_processor=[schema.decoding([True] * 3, excluded)]
    )
    texts = tokenizer.batch_decode(written[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    found = [json.loads(text)["category"] for text in texts]
    assert found[:2] == ["TEAPOTS", "TEA"]
    # Nothing is left to choose from: the schema alone decides.
    assert found[2] in names


@dataclass(frozen=True)
class Drawn:
    """A tokenizer of every byte and of pieces of answers, values, and those that two rows must not take."""

    values: list[str]
    excluded: list[set[str]]
    tokens: list[bytes]
    fields: list[str]
    seed: int

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        letters = bytes_to_unicode()
        vocabulary = {"<eos>": 0} | {
            "".join(letters[byte] for byte in token): number for number, token in enumerate(self.tokens, 1)
        }
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")

    @property
    def schema(self) -> dict[str, Any]:
        properties = {"note": {"type": "string", "maxLength": 2}, "category": {"enum": self.values}}
        row = {
            "type": "object",
            "properties": {name: properties[name] for name in self.fields},
            "required": self.fields,
            "additionalProperties": False,
        }
        return {"type": "array", "items": row, "minItems": 1, "maxItems": len(self.values) + 1}


def spelled(value: str) -> bytes:
    """A value as the schema's grammar writes it, with the quote that ends it."""
    return json.dumps(value, ensure_ascii=False)[1:].replace("\x7f", "\\u007f").encode()


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    # Few characters, so that values begin alike and end in one another: escapes, multi-byte ones, JSON's own.
    values = draw(st.lists(st.text('aA é🍋🍊"\\\t\x01\x7f,:}', max_size=4), min_size=1, max_size=6, unique=True))
    excluded = draw(st.lists(st.sets(st.sampled_from(values)), min_size=2, max_size=2))
    fields = draw(st.sampled_from([["note", "category"], ["category", "note"]]))
    rng = Random(draw(st.integers(0, 2**32)))
    rows = []
    for _ in range(40):
        written = {"note": b'"note": ""', "category": b'"category": "' + spelled(rng.choice(values))}
        rows.append(b"{%s, %s}" % tuple(written[name] for name in fields))
    answer = b", ".join(rows)
    # Some pieces open the field, or end one value and begin another.
    pieces = {answer[at : at + rng.randint(2, 60)] for at in (rng.randrange(len(answer)) for _ in range(80))}
    tokens = [bytes([byte]) for byte in range(256)] + sorted(piece for piece in pieces if len(piece) > 1)
    return Drawn(values, excluded, tokens, fields, rng.randrange(2**32))


def keeps_values_distinct(text: bytes, values: Collection[str]) -> bool:
    """Tell, from its beginning on, whether an answer takes one value after another, each once, as long as any is
    left: the slow and obvious way."""
    left = {spelled(value) for value in values}
    opening = b'"category": "'
    at = text.find(opening)
    while at >= 0 and left:
        rest = text[at + len(opening) :]
        whole = {value for value in left if rest.startswith(value)}
        if not whole:
            return any(value.startswith(rest) for value in left)
        left -= whole
        at = text.find(opening, at + len(opening))
    return True


@settings(max_examples=60, deadline=None)
@given(drawn=drawn())
def test_distinct_values_allow_exactly_the_tokens_that_a_plain_reading_of_the_whole_answer_allows(drawn: Drawn) -> None:
    tokenizer, rng = drawn.tokenizer, Random(drawn.seed)
    options = {"vocab_size": len(drawn.tokens) + 9, "eos_token_ids": [0]}
    schema_alone = JsonConstraint(tokenizer, drawn.schema, **options)
    constraint = JsonConstraint(tokenizer, drawn.schema, distinct=Distinct("category", drawn.values), **options)
    for _ in range(2):
        # What is known from one batch is used in the next.
        left = [set(drawn.values) - names for names in drawn.excluded]
        by_schema, decoding = schema_alone.decoding([True, True]), constraint.decoding([True, True], drawn.excluded)
        ids = torch.zeros((2, 0), dtype=torch.int64)
        for _ in range(120):
            scores = torch.zeros(2, len(drawn.tokens) + 9)
            candidates, allowed = by_schema(ids, scores).isfinite(), decoding(ids, scores).isfinite()
            chosen = []
            for row, written in enumerate(ids.tolist()):
                text = b"".join(drawn.tokens[token - 1] for token in written if token)
                expected = [
                    token
                    for token in candidates[row].nonzero().flatten().tolist()
                    if not token or keeps_values_distinct(text + drawn.tokens[token - 1], left[row])
                ]
                assert allowed[row].nonzero().flatten().tolist() == expected, text
                # Every other time a long one.
                chosen.append(max(rng.sample(expected, min(len(expected), rng.choice([1, 30])))))
            if not any(chosen):
                break
            ids = torch.cat([ids, torch.tensor(chosen)[:, None]], 1)
