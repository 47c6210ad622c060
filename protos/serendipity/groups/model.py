"""The three models of the group source as directories, both LLMs also as Triton models: the names their users share.

<groups>/        group_encoder.pt2, groups.json (GroupSpec in protobuf JSON)
<coevolution>/   coevolution.json (CoevolutionSpec)
                 novelty/, relevance/: what `save_pretrained` writes, with CATEGORIES (JSON list) beside
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format

from serendipity.layout import sha256
from serendipity.v1 import records_pb2

GROUP_SPEC = "groups.json"
GROUP_ENCODER = "group_encoder.pt2"

SEQUENCE = "sequence"
"""Input of the group encoder, INT64 [B, sequence_length]: as `sequence.long_sequence` lays it out."""
PROFILE = "profile"
"""Input of the group encoder, INT32 [B, P]: value number of each profile field, 0 = unknown; P is at least 1."""

COEVOLUTION_SPEC = "coevolution.json"
NOVELTY = "novelty"
RELEVANCE = "relevance"
CATEGORIES = "categories.json"
NOVELTY_PREFIX = "novelty_llm_"
RELEVANCE_PREFIX = "relevance_llm_"

PROMPT = "prompt"
"""Input of both LLMs, BYTES [B, 1]: the user message (`prompt`); the model adds instructions and chat template itself.
The Relevance LLM's holds the candidate."""
EXCLUDED = "excluded"
"""Input of the Novelty LLM, BYTES [B, 1], optional (none): JSON list of categories it must not propose."""
COUNT = "count"
"""Input of the Novelty LLM, INT32 [B, 1]: categories wanted; fewer where the catalogue has no more."""
PROPOSALS = "proposals"
"""Output of the Novelty LLM, BYTES [B, 1]: JSON list of [category, log-probability], most probable first."""
SCORE = "score"
"""Output of the Relevance LLM, FP32 [B, 1]: f, neither scaled nor offset."""


_Spec = TypeVar("_Spec", records_pb2.GroupSpec, records_pb2.CoevolutionSpec)


class GroupModelError(Exception):
    """A model directory cannot be used: names the file, what was found and what was expected."""


def read_group_spec(directory: Path) -> records_pb2.GroupSpec:
    """Read groups.json and check that the program beside it is the one it names. Raises GroupModelError."""
    path = directory / GROUP_SPEC
    spec = _read(path, records_pb2.GroupSpec())
    _expect(path, "group_model_id", spec.group_model_id, _program_fingerprint(directory / GROUP_ENCODER))
    return spec


def read_coevolution_spec(directory: Path) -> records_pb2.CoevolutionSpec:
    """Read coevolution.json and check that the weights below it are the ones it names. Raises GroupModelError."""
    path = directory / COEVOLUTION_SPEC
    spec = _read(path, records_pb2.CoevolutionSpec())
    _expect(path, "novelty_fingerprint", spec.novelty_fingerprint, llm_fingerprint(directory / NOVELTY))
    _expect(path, "relevance_fingerprint", spec.relevance_fingerprint, llm_fingerprint(directory / RELEVANCE))
    return spec


def llm_fingerprint(directory: Path) -> str:
    """First 16 hex digits of the SHA-256 over weights, tokenizer and categories. Raises GroupModelError."""
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise GroupModelError(f"{directory}: holds no *.safetensors; expected the weights of a language model")
    digest = hashlib.sha256()
    for path in (*weights, directory / "tokenizer.json", directory / CATEGORIES):
        if not path.is_file():
            raise GroupModelError(f"{path}: missing; expected it beside the weights")
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]


def _program_fingerprint(program: Path) -> str:
    if not program.is_file():
        raise GroupModelError(f"{program}: missing; expected the exported encoder")
    return sha256(program)[:16]


def _read(path: Path, spec: _Spec) -> _Spec:
    try:
        return json_format.Parse(path.read_text(encoding="utf-8"), spec)
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise GroupModelError(f"{path}: cannot be read ({error}); expected a {type(spec).__name__}") from error


def _expect(path: Path, name: str, found: str, expected: str) -> None:
    if found != expected:
        raise GroupModelError(f"{path}: {name}: found {found!r}, expected {expected!r} of what lies beside it")
