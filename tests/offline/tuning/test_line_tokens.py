"""Tokenising line by line gives what tokenising whole prompts gives, or declines."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serendipity.groups.prompt import novelty_prompt, relevance_prompt
from serendipity.offline.coevolution.whole_tokens import make_tokenizer
from serendipity.offline.tuning.config import TinyLmConfig
from serendipity.offline.tuning.line_tokens import tokens_by_line
from serendipity.offline.tuning.tokens import prompt_tokens
from tests.fixtures.tiny_language_model import make_tiny_language_model

CATEGORIES = ["BEEF", "BEEF JERKY", 'CRÈME "FRAÎCHE"', "TEA; TOWELS", "candidate: x", "  ", "a"]
PROFILES = ["", "Shoppers of tea and beef", "group: recent: everybody", "ends in spaces  "]
TOKENIZER: PreTrainedTokenizerFast = make_tokenizer(CATEGORIES, PROFILES, TinyLmConfig(merges=40))

texts = st.one_of(st.sampled_from([*CATEGORIES, *PROFILES]), st.text(max_size=12))


@given(st.lists(st.tuples(texts, st.lists(texts, max_size=3), texts), min_size=1, max_size=6))
def test_prompts_have_the_tokens_that_the_server_reads(told: list[tuple[str, list[str], str]]) -> None:
    prompts = [
        text
        for profile, recent, candidate in told
        for text in (
            novelty_prompt(profile, recent, "compact"),
            relevance_prompt(profile, recent, candidate, "compact"),
        )
    ]
    assert tokens_by_line(TOKENIZER, prompts) == TOKENIZER(prompts)["input_ids"]
    assert prompt_tokens(TOKENIZER, prompts, "compact", "") == TOKENIZER(prompts)["input_ids"]


def test_a_line_that_begins_with_no_added_token_is_not_cut_off() -> None:
    prompts = ["group: a\nrecent: b", "group: a\nsomething else"]
    assert tokens_by_line(TOKENIZER, prompts[:1]) is not None
    assert tokens_by_line(TOKENIZER, prompts) is None
    assert prompt_tokens(TOKENIZER, prompts, "compact", "") == TOKENIZER(prompts)["input_ids"]


def test_a_tokenizer_without_such_tokens_reads_prompts_whole(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_language_model(tmp_path))
    prompts = [novelty_prompt("tea", ["BEEF"], "compact")]
    assert tokens_by_line(tokenizer, prompts) is None
    assert prompt_tokens(tokenizer, prompts, "compact", "") == tokenizer(prompts)["input_ids"]
