"""InterestGPT under the real tritonserver, asked as a language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serendipity.interests import model
from serendipity.interests.answer import answer_schema
from serendipity.interests.prompt import INSTRUCTIONS
from serendipity.offline.language_models.config import TritonConfig
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.language_models.language_model import LanguageModelError, Prompt, Sampling
from serendipity.offline.language_models.local import LocalModel
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import INTEREST_GPT, interest_gpt
from tests.fixtures.tiny_interest_gpt import CATEGORIES, NUM_INTERESTS, example_prompts, make_tiny_interest_gpt
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration

MAX_NEW_TOKENS = 40
CONSTRAINED = Sampling(max_new_tokens=MAX_NEW_TOKENS, schema=answer_schema(CATEGORIES, NUM_INTERESTS))


def test_a_model_answers_on_triton_as_it_does_here(triton_server: RunningTriton, tmp_path: Path) -> None:
    directory = tmp_path / "interest_gpt"
    spec = make_tiny_interest_gpt(directory, seed=7, max_new_tokens=MAX_NEW_TOKENS, max_batch=3)
    deployment.place(INTEREST_GPT, directory, triton_server.models_dir)
    deployment.load(triton_server.grpc_url, interest_gpt(spec))
    config = TritonConfig(url=triton_server.url, spec=directory / model.SPEC)
    served = open_language_model(config, tmp_path / "cache")
    local = LocalModel.from_path(directory, device="cpu")
    prompts = [Prompt(text) for text in example_prompts()]
    assert served.name == spec.model_name

    for sampling in (CONSTRAINED, Sampling(max_new_tokens=MAX_NEW_TOKENS)):
        found = served.complete(prompts, sampling)
        expected = local.complete(prompts, sampling)
        assert [(c.text, c.prompt_tokens, c.finished) for c in found] == [
            (c.text, c.prompt_tokens, c.finished) for c in expected
        ]
    assert served.complete(prompts, CONSTRAINED)[0].text.startswith('{"interests": [{"seed": ')
    assert served.usage.cache_hits == len(prompts)
    assert served.complete([Prompt(prompts[0].user, system=INSTRUCTIONS)], CONSTRAINED)[0].prompt_tokens > 0


def test_a_model_that_is_not_loaded_is_refused_at_once(triton_server: RunningTriton, tmp_path: Path) -> None:
    path = tmp_path / model.SPEC
    path.write_text(json.dumps({"modelName": "interest_gpt_nobody_placed", "maxBatch": 4, "maxNewTokens": 8}))
    absent = open_language_model(TritonConfig(url=triton_server.url, spec=path))
    with pytest.raises(LanguageModelError, match=r"interest_gpt_nobody_placed at .*\(tried 1 times\)"):
        absent.complete([Prompt("recent: \ninterests:")])
