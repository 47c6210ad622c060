"""A small shop whose users enter new categories as time goes on, with logs and interests built of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.interests.grounding import Grounder
from serendipity.offline.distillation.material import Material
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.builder import build_interests
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.small_host import write_small_host


class LettersEncoder(TextEncoder):
    """Counts letters: an encoder whose answers can be told without weights."""

    def __init__(self) -> None:
        self.name, self.dim = "letters", 27

    def encode(self, texts: Sequence[str], cache: Path | None = None) -> NDArray[np.float32]:
        counts = [[1, *(text.lower().count(chr(97 + i)) for i in range(26))] for text in texts]
        vectors = np.array(counts, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True)
class Shop:
    """logs, interests: directories; the rest: what they hold."""

    logs: Path
    interests: Path
    histories: Histories
    until: int
    vocabulary: Vocabulary
    titles: list[str]
    taxonomy: Taxonomy
    grounder: Grounder
    encoder: TextEncoder

    @property
    def material(self) -> Material:
        return Material(self.histories, self.until, self.vocabulary, self.titles, self.taxonomy, None, self.grounder)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    directory = tmp_path_factory.mktemp("shop")
    write_small_host(directory / "host", num_users=60)
    build_logs(directory / "host", directory / "logs", LogsConfig(novelty_level=1))
    build_interests(directory / "logs", directory / "interests", LettersEncoder())
    histories, catalogue = Histories.read(directory / "logs"), Catalogue.read(directory / "logs")
    vocabulary = Vocabulary.read(directory / "interests")
    return Shop(
        logs=directory / "logs",
        interests=directory / "interests",
        histories=histories,
        until=LogsSummary.read(directory / "logs").events_until,
        vocabulary=vocabulary,
        titles=catalogue.titles,
        taxonomy=Taxonomy.from_catalogue(catalogue),
        grounder=vocabulary.grounder(LettersEncoder()),
        encoder=LettersEncoder(),
    )
