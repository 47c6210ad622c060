"""The cache: what was answered once is never asked again, whatever kills whom in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.offline.language_models.answering_model import AnsweringModel
from serendipity.offline.language_models.completion_cache import CompletionCache, completion_keys
from serendipity.offline.language_models.language_model import Completion, LanguageModelError, Prompt, Sampling, Usage


class Echo(AnsweringModel):
    """Repeats prompts, two at a time; dies at a prompt that says so."""

    def __init__(self, cache: CompletionCache | Path | None = None) -> None:
        cache = CompletionCache.at(cache) if isinstance(cache, Path) else cache
        super().__init__("echo", cache, clock=iter(range(10**6)).__next__)
        self.asked: list[Prompt] = []

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Mapping[int, Completion]]:
        # Backwards: answers come in any order.
        for end in range(len(prompts), 0, -2):
            places = range(max(0, end - 2), end)
            self.asked += [prompts[place] for place in places]
            if any(prompts[place].user == "die" for place in places):
                raise LanguageModelError("died")
            yield {place: echoed(prompts[place], sampling) for place in places}


def echoed(prompt: Prompt, sampling: Sampling) -> Completion:
    return Completion(f"{prompt.system}|{prompt.user}|{sampling.seed}", 3, 2, True, reasoning="said before")


def some(*texts: str) -> list[Prompt]:
    return [Prompt(text) for text in texts]


def test_equal_prompts_are_asked_once_ever(tmp_path: Path) -> None:
    echo = Echo(tmp_path)
    found = echo.complete(some("a", "b", "a"))
    assert [answer.text for answer in found] == ["|a|0", "|b|0", "|a|0"]
    assert echo.usage == Usage(3, 1, prompt_tokens=6, completion_tokens=4, seconds=1)
    again = Echo(tmp_path)
    assert again.complete(some("b", "c", "a")) == [echoed(Prompt(t), Sampling()) for t in "bca"]
    assert (again.usage.prompts, again.usage.cache_hits, again.usage.prompt_tokens) == (3, 2, 3)
    assert sorted(prompt.user for prompt in echo.asked) == ["a", "b"]
    assert len(CompletionCache.at(tmp_path)) == 3


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_cached_model_answers_as_the_model_itself(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("cache")
    texts = st.text(st.characters(exclude_categories=[]), max_size=6)
    for _ in range(data.draw(st.integers(1, 3))):
        prompts = data.draw(st.lists(st.builds(Prompt, texts.filter(lambda t: t != "die"), texts), max_size=9))
        sampling = Sampling(seed=data.draw(st.integers(0, 2)))
        assert Echo(directory).complete(prompts, sampling) == Echo().complete(prompts, sampling)


def test_everything_an_answer_depends_on_makes_another_key() -> None:
    keys = [
        completion_keys(model, [prompt], sampling)[0]
        for model, prompt, sampling in [
            ("m", Prompt("a"), Sampling()),
            ("n", Prompt("a"), Sampling()),
            ("m", Prompt("b"), Sampling()),
            ("m", Prompt("", "a"), Sampling()),
            ("m", Prompt("a"), Sampling(max_new_tokens=1)),
            ("m", Prompt("a"), Sampling(temperature=0.5)),
            ("m", Prompt("a"), Sampling(seed=1)),
        ]
    ]
    assert len(set(keys)) == len(keys)


def test_what_came_before_a_failure_is_stored_and_the_rest_asked_again(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="died"):
        Echo(tmp_path).complete(some("a", "die", "b", "c"))
    echo = Echo(tmp_path)
    echo.complete(some("a", "b", "c"))
    assert echo.asked == some("a")


def test_a_process_killed_while_storing_leaves_a_cache_that_can_be_read_and_written(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from serendipity.offline.language_models.completion_cache import CompletionCache\n"
        "from serendipity.offline.language_models.language_model import Completion\n"
        f"cache = CompletionCache.at(Path({str(tmp_path)!r}))\n"
        "for number in range(10**9):\n"
        "    keys = [b'%16d%16d' % (number, i) for i in range(3)]\n"
        "    cache.put({key: Completion('x' * 5000, number, 1, True) for key in keys})\n"
        "    sys.stdout.write(f'{number}\\n')\n"
        "    sys.stdout.flush()\n"
    )
    stored = -1
    for rounds in (1, 7, 20):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout:
            for _ in range(rounds):
                stored = max(stored, int(child.stdout.readline()))
            child.send_signal(signal.SIGKILL)
            child.wait()
        cache = CompletionCache.at(tmp_path)
        for number in range(stored + 1):
            found = cache.get([b"%16d%16d" % (number, i) for i in range(3)])
            assert [answer.prompt_tokens for answer in found.values()] == [number] * 3
        # All of a batch, or nothing of it.
        assert len(cache) % 3 == 0
        del cache
    CompletionCache.at(tmp_path).put({b"k" * 32: Completion("a", 1, 1, True)})


def test_old_answers_expire(tmp_path: Path) -> None:
    now = 1_000.0
    cache = CompletionCache(tmp_path, clock=lambda: now)
    Echo(cache).complete(some("a", "b"))
    now = 2_000.0
    Echo(cache).complete(some("b", "c"))
    assert cache.expire(1_000) == 0
    assert cache.expire(1_500) == 2
    assert len(cache) == 1
    echo = Echo(cache)
    echo.complete(some("a", "b", "c"))
    assert sorted(prompt.user for prompt in echo.asked) == ["a", "b"]


def test_one_process_opens_a_directory_once_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    first = CompletionCache.at(tmp_path / "cache")
    assert CompletionCache.at(tmp_path / "link") is first
    assert CompletionCache.at(tmp_path / "." / "cache") is first


def test_a_directory_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LanguageModelError, match="file: cannot be opened"):
        CompletionCache.at(tmp_path / "file")
