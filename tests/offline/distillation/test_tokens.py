import json

from serendipity.interests.answer import CATEGORY_FIRST, Proposal, write_answer
from serendipity.offline.distillation.config import SftConfig
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.tokens import tokenize
from serendipity.offline.distillation.whole_tokens import make_tokenizer
from serendipity.offline.tuning.config import TinyLmConfig
from serendipity.offline.tuning.tokens import IGNORED

NAMES = ["TEA", "MUGS", "RICE"]
TOKENIZER = make_tokenizer(NAMES, ["everyone"], TinyLmConfig(merges=20))
ANSWER = write_answer([Proposal("TEA", "TEA", name, name) for name in NAMES], CATEGORY_FIRST)


def example(num_confirmed: int) -> Example:
    return Example("u", 0, "train", "recent: TEA x1\ninterests:", "TEA → TEA → TEA", ANSWER, "t", 3, num_confirmed, 0)


def learned(num_confirmed: int, **config: bool) -> str:
    (tokens,), _ = tokenize([example(num_confirmed)], TOKENIZER, "compact", SftConfig(**config))
    return str(TOKENIZER.decode([token for token in tokens.labels if token != IGNORED]))


def test_prompts_are_read_and_answers_with_their_end_are_learned() -> None:
    assert learned(0) == ANSWER + TOKENIZER.eos_token


def test_of_unconfirmed_interests_only_the_end_is_learned() -> None:
    first = json.dumps({"interests": json.loads(ANSWER)["interests"][:1]})
    assert learned(1) == first + TOKENIZER.eos_token
    assert learned(3) == learned(1, only_confirmed=False) == ANSWER + TOKENIZER.eos_token


def test_reasoning_is_written_before_the_answer_where_asked_for() -> None:
    assert learned(0, think=True) == f"<think>\nTEA → TEA → TEA\n</think>\n{ANSWER}{TOKENIZER.eos_token}"


def test_examples_that_are_too_long_are_left_out_and_counted() -> None:
    long = Example("u", 0, "train", "é" * 2_000, "", ANSWER, "t", 3, 0, 0)
    kept, too_long = tokenize([long, example(0)], TOKENIZER, "compact", SftConfig(max_tokens=256))
    assert (len(kept), too_long) == (1, 1)
