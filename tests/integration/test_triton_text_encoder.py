"""The text encoder under the real tritonserver gives the builders' numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from serendipity.offline import encoder
from serendipity.offline.encoder import TextEncoder
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import TEXT_ENCODER, text_encoder
from serendipity.tools.serving.trainings import PlacementError
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "garden", "tools", "running", "shoes", "for", "children", "é"]
TEXTS = ["garden tools", "running shoes for children", "", "é", "garden " * 600, "running shoes for children"]


def write_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(directory)


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(directory)
    write_tokenizer(directory)
    return directory


@pytest.fixture
def client(triton_server: RunningTriton) -> Iterator[Any]:
    connection = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    yield connection
    connection.close()


def embed(client: Any, cells: list[bytes]) -> NDArray[np.float32]:
    tensor = triton_grpc.InferInput("texts", [len(cells), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(cells, np.object_).reshape(-1, 1))
    vectors: NDArray[np.float32] = client.infer("text_encoder", [tensor]).as_numpy("embeddings")
    return vectors


@pytest.mark.parametrize("kind", ["sentence_encoder", "default"])
def test_embeddings_equal_those_of_the_builders(
    triton_server: RunningTriton, client: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    directory = encoder.default_path() if kind == "default" else request.getfixturevalue(kind)
    assert deployment.place(TEXT_ENCODER, directory, triton_server.models_dir) == "text_encoder"
    local = TextEncoder(directory)
    deployment.load(triton_server.grpc_url, text_encoder(local.dim))
    found = embed(client, [text.encode() for text in TEXTS])
    assert found.shape == (len(TEXTS), local.dim)
    np.testing.assert_allclose(found, local.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    with pytest.raises(triton_grpc.InferenceServerException, match="can't decode byte 0xff"):
        embed(client, [b"\xff"])


def test_a_directory_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"config\.json: missing; expected the configuration"):
        deployment.place(TEXT_ENCODER, tmp_path, tmp_path / "models")
