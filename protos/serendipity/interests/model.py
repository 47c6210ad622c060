"""InterestGPT as a directory and as a Triton model: the names that its trainer, its server and its caller share.

A model directory is what `save_pretrained` writes of a causal language model and its tokenizer, with two files beside:
SPEC (InterestGptSpec in protobuf JSON) and CATEGORIES (JSON list of the categories it may answer with).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from google.protobuf import json_format

from serendipity.v1 import records_pb2

SPEC = "interest_gpt.json"
CATEGORIES = "categories.json"
MODEL_PREFIX = "interest_gpt_"

PROMPT = "prompt"
"""Input, BYTES [B, 1]: the user message (`prompt.render`); the model adds instructions and chat template itself."""
CANDIDATES = "candidates"
"""Input, BYTES [B, 1], optional: JSON list of categories, empty for all. Given, nothing is written, and their
likelihoods come out."""
LOG_LIKELIHOODS = "log_likelihoods"
"""Output, BYTES [B, 1]: JSON list of log P(category is the first that an answer names), in the candidates' order."""
ANSWER = "answer"
"""Output, BYTES [B, 1]: what was written, without the prompt and without special tokens."""
PROMPT_TOKENS = "prompt_tokens"
"""Output, INT32 [B, 1]."""
COMPLETION_TOKENS = "completion_tokens"
"""Output, INT32 [B, 1]; max_new_tokens for an answer that was cut off."""


class InterestGptError(Exception):
    """A model directory cannot be used: names the file, what was found and what was expected."""


def read_spec(directory: Path) -> records_pb2.InterestGptSpec:
    """Read the spec and check that the weights beside it are the ones it names. Raises InterestGptError."""
    path = directory / SPEC
    try:
        spec = json_format.Parse(path.read_text(encoding="utf-8"), records_pb2.InterestGptSpec())
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise InterestGptError(f"{path}: cannot be read ({error}); expected the spec of an InterestGPT") from error
    found = fingerprint(directory)
    if spec.fingerprint != found:
        raise InterestGptError(f"{path}: fingerprint: found {spec.fingerprint!r}, expected {found!r} of the weights")
    return spec


def fingerprint(directory: Path) -> str:
    """First 16 hex digits of the SHA-256 over weights, tokenizer and categories. Raises InterestGptError."""
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise InterestGptError(f"{directory}: holds no *.safetensors; expected the weights of an InterestGPT")
    digest = hashlib.sha256()
    for path in (*weights, directory / "tokenizer.json", directory / CATEGORIES):
        if not path.is_file():
            raise InterestGptError(f"{path}: missing; expected it beside the weights")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
