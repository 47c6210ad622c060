"""Completions on disk: whatever was answered once is never asked again."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from serendipity.offline.language_models.language_model import Completion, LanguageModelError, Prompt, Sampling

_FORMAT = 1
_MAP_BYTES = 1 << 36
"""64 GiB of addresses, some 50 million answers; the file is as large as its contents."""

_open: WeakValueDictionary[Path, CompletionCache] = WeakValueDictionary()
_opening = threading.Lock()


class CompletionCache:
    """A directory of completions: an LMDB environment, shared by any number of models, processes and threads.

    What `put` returned from survives a kill and a power cut; a kill inside it leaves the cache as it was before.
    Raises LanguageModelError when the directory cannot be used.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Use CompletionCache.at: one process may open an environment only once. clock: Unix seconds."""
        self._directory = directory
        self._clock = clock
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(str(directory), map_size=_MAP_BYTES, max_dbs=1)
            self._completions = self._environment.open_db(b"completions")
        except (OSError, lmdb.Error) as error:
            raise LanguageModelError(
                f"{directory}: cannot be opened ({error}); expected a directory for a completion cache"
            ) from error

    @classmethod
    def at(cls, directory: Path) -> CompletionCache:
        """Open a cache, or take the one that this process has open there; it is closed when nobody uses it."""
        place = directory.resolve()
        with _opening:
            cache = _open.get(place)
            if cache is None:
                cache = _open[place] = cls(place)
            return cache

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Read the completions that are there."""
        with self._environment.begin(self._completions) as transaction:
            found = {key: transaction.get(key) for key in keys}
        return {key: _read(value)[1] for key, value in found.items() if value is not None}

    def put(self, completions: Mapping[bytes, Completion]) -> None:
        """Store completions, all or none; one that is already there stays. Raises LanguageModelError."""
        try:
            with self._environment.begin(self._completions, write=True) as transaction:
                for key, completion in completions.items():
                    transaction.put(key, _written(completion, int(self._clock())), overwrite=False)
        except lmdb.Error as error:
            raise LanguageModelError(f"{self._directory}: cannot be written ({error})") from error

    def expire(self, before: float) -> int:
        """Delete what was stored before a moment (Unix seconds); returns how many."""
        try:
            with self._environment.begin(self._completions, write=True) as transaction:
                expired = [key for key, value in transaction.cursor() if _read(value)[0] < before]
                return sum(transaction.delete(key) for key in expired)
        except lmdb.Error as error:
            raise LanguageModelError(f"{self._directory}: cannot be written ({error})") from error

    def __len__(self) -> int:
        """Count the completions of all models."""
        with self._environment.begin() as transaction:
            return int(transaction.stat(self._completions)["entries"])


def completion_keys(model: str, prompts: Sequence[Prompt], sampling: Sampling) -> list[bytes]:
    """Hash, for each prompt, all that its answer depends on: SHA-256, 32 bytes."""
    asked = hashlib.sha256(json.dumps([_FORMAT, model, asdict(sampling)], sort_keys=True).encode()).hexdigest()
    return [hashlib.sha256(json.dumps([asked, prompt.system, prompt.user]).encode()).digest() for prompt in prompts]


def _written(completion: Completion, stored_at: int) -> bytes:
    # ASCII: half a surrogate pair, which a tokenizer's pieces can decode to, is kept as it is.
    return json.dumps({**asdict(completion), "stored_at": stored_at}).encode()


def _read(value: bytes) -> tuple[int, Completion]:
    fields = json.loads(value)
    return fields.pop("stored_at", 0), Completion(**fields)
