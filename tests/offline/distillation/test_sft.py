from serendipity.interests.answer import CATEGORY_FIRST, Proposal, write_answer
from serendipity.offline.distillation.examples import Example
from serendipity.offline.distillation.sft import tokenize
from serendipity.offline.distillation.whole_tokens import make_tokenizer
from serendipity.offline.tuning.config import TinyLmConfig
from serendipity.offline.tuning.tokens import IGNORED

NAMES = ["TEA", "MUGS", "RICE"]
TOKENIZER = make_tokenizer(NAMES, ["everyone"], TinyLmConfig(merges=20))
ANSWER = write_answer([Proposal("TEA", "TEA", name, name) for name in NAMES], CATEGORY_FIRST)


EXAMPLE = Example("u", 0, "train", "recent: TEA x1\ninterests:", "TEA → TEA → TEA", ANSWER)


def learned(*, think: bool) -> str:
    (tokens,) = tokenize([EXAMPLE], TOKENIZER, "compact", think=think)
    return str(TOKENIZER.decode([token for token in tokens.labels if token != IGNORED]))


def test_prompts_are_read_and_answers_with_their_end_are_learned() -> None:
    assert learned(think=False) == ANSWER + TOKENIZER.eos_token


def test_reasoning_is_written_before_the_answer_where_asked_for() -> None:
    assert learned(think=True) == f"<think>\nTEA → TEA → TEA\n</think>\n{ANSWER}{TOKENIZER.eos_token}"
