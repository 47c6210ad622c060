from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.tuning.base_model import load_model
from tests.fixtures.tiny_language_model import make_tiny_language_model


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in bfloat16, found by what believes to have a GPU."""
    directory = make_tiny_language_model(tmp_path)
    AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).save_pretrained(directory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return directory


def test_weights_keep_their_own_type_where_there_is_a_gpu(stored: Path) -> None:
    assert load_model(stored, "small", "compact").model.dtype == torch.bfloat16


def test_llms_that_cycles_change_are_whole(stored: Path) -> None:
    (stored / "categories.json").write_text('["Tea"]')
    assert NoveltyLlm.read(stored).base.model.dtype == torch.float32
