import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.interests.answer import CATEGORY_FIRST, FIELDS, Proposal, write_answer
from serendipity.interests.prompt import CategoryFact, UserFacts, render
from serendipity.offline.distillation.whole_tokens import make_tokenizer
from serendipity.offline.tuning.config import TinyLmConfig
from serendipity.offline.tuning.tiny_lm import make_model

CONFIG = TinyLmConfig(hidden_size=16, num_heads=2, intermediate_size=32, merges=40)
TOKENIZER = make_tokenizer(["GREEN TEA", "TEA", "Café", "MUGS & CUPS"], ["age 65+; income 35-49K"], CONFIG)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200).filter(lambda text: "<pad>" not in text and "<end>" not in text))
def test_any_text_can_be_written(text: str) -> None:
    readable = text.encode("utf-8", "ignore").decode()
    assert TOKENIZER.decode(TOKENIZER(readable)["input_ids"]) == readable


def test_a_category_with_its_count_is_two_tokens() -> None:
    facts = UserFacts(recent=[CategoryFact("GREEN TEA", 5, 3)] * 2, earlier=[CategoryFact("MUGS & CUPS", 1, 33)])
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(render(facts, "compact"))["input_ids"])
    assert tokens[-4:-2] == ["MUGS & CUPS", " x1 4w\n"] or "MUGS & CUPS" in tokens
    assert tokens.count("GREEN TEA") == 2
    assert len(tokens) < 14


def test_an_interest_is_eight_tokens_in_either_order() -> None:
    row = Proposal("GREEN TEA", "TEA", "MUGS & CUPS", "MUGS & CUPS")
    for fields in (FIELDS, CATEGORY_FIRST):
        assert len(TOKENIZER(write_answer([row] * 5, fields))["input_ids"]) == 5 * 8 + 1


def test_weights_follow_from_the_seed_and_leave_other_randomness_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, other = make_model(TOKENIZER, CONFIG, 1), make_model(TOKENIZER, CONFIG, 1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    different = make_model(TOKENIZER, CONFIG, 2).get_input_embeddings().weight
    assert not torch.equal(different, one.get_input_embeddings().weight)
