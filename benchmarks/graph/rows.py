"""What is compared: rows, the settings that validation chooses from, and what each row sees of the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from benchmarks.graph.cfkg import CFKGConfig
from serendipity.offline.configuration import Configuration
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.interest_graph import InterestGraph

LIGHTGCN, FOLDED, CIKG = "LightGCN", "LightGCN, users folded in", "CIKG"
SPECTRAL, PROFILE = "spectral", "profile attributes instead of interests"
NOISES = (0.1, 0.3, 0.5)
"""Shares of random interest edges that are added, of the true ones."""

_SMALL = 1e-3
"""Weight of UIR or contrast where it is tried. Losses of cosines pull the harder the shorter the embeddings are, and
these are short; with the published 0.03 of UIR, validation was behind at equal epochs."""

_LAYERS = (3, 4, 2)

_TRAINER = {"batch_clicks": 8192, "check_every": 5, "patience": 6, "max_epochs": 300}


class SpectralConfig(Configuration):
    """Vectors in closed form (serendipity.offline.graph.spectral), as builds make them."""

    dim: int = Field(64, ge=1)
    """d."""
    power: float = Field(0.5, ge=0)
    """p."""
    seed: int = 0
    """Of the randomised decomposition."""


Settings = GraphConfig | CFKGConfig | SpectralConfig


@dataclass(frozen=True)
class Row:
    """One row. trials: settings, of which the best on validation is taken; none: nothing is trained (popularity).

    sees: (graph, seed) → what of the graph it is given. like: the row whose choice of settings it takes over, changed
    by `change`; such a row has no trials of its own, and trains for as many epochs as that one.
    """

    name: str
    trials: tuple[Settings, ...] = ()
    sees: Callable[[InterestGraph, int], InterestGraph] = lambda graph, _: graph
    like: str | None = None
    change: Callable[[GraphConfig], GraphConfig] | None = None


def main_rows(trials: int | None) -> tuple[Row, ...]:
    """Give the rows of the comparison, each trained one with its first `trials` settings; None: with all."""
    rows = (
        Row("popularity"),
        Row("BPR-MF", _plain((0,), own=True), _bare),
        Row(LIGHTGCN, _plain(_LAYERS, own=True), _bare),
        Row(FOLDED, _plain(_LAYERS, own=False), _bare),
        Row("CFKG", _cfkg()),
        Row(CIKG, _cikg()),
    )
    return tuple(replace(row, trials=row.trials[:trials]) for row in rows)


def spectral_row() -> Row:
    """Give the row of the vectors that builds make of a host's graph; both of its settings are always tried."""
    return Row(SPECTRAL, (SpectralConfig(power=0.25), SpectralConfig(power=0.5)))


def limited(row: Row, epochs: int | None, batch: int | None) -> Row:
    """Give the same row with at most so many epochs, and steps of so many clicks; None: as they are."""
    numbers = {"max_epochs": epochs, "batch_clicks": batch}
    changes = {name: value for name, value in numbers.items() if value is not None}

    def changed(settings: Settings) -> Settings:
        if isinstance(settings, GraphConfig):
            return settings.model_copy(update={"trainer": settings.trainer.model_copy(update=changes)})
        return settings.model_copy(update=changes) if isinstance(settings, CFKGConfig) else settings

    return replace(row, trials=tuple(changed(settings) for settings in row.trials))


def profile_row(profile: NDArray[np.int64], num_values: int) -> Row:
    """Give CIKG with edges between users and attribute values, [2, E], in the place of those to interests."""
    return Row(PROFILE, like=CIKG, sees=lambda graph, _: replace(graph, holds=profile, num_interests=num_values))


def ablations() -> tuple[Row, ...]:
    """Give CIKG without each part that it has, with each that it lacks, and with random interest edges."""
    parts = (
        Row("w/o UIR", like=CIKG, change=_without_reconstruction),
        Row("w/o contrast", like=CIKG, change=_without_contrast),
        Row("w/o interests", like=CIKG, sees=lambda graph, _: graph.without_interests()),
        Row("w/o knowledge", like=CIKG, sees=lambda graph, _: graph.without_knowledge()),
        Row("w/o TransE", like=CIKG, change=_without_translation),
        Row("with UIR", like=CIKG, change=_with_reconstruction),
        Row("UIR on a linear schedule", like=CIKG, change=_with_linear_reconstruction),
        Row("with contrast", like=CIKG, change=_with_contrast),
        Row("contrast ten times as strong", like=CIKG, change=_with_strong_contrast),
        Row("with TransE", like=CIKG, change=_with_translation),
    )
    noisy = [
        Row(f"{share:.0%} noise{suffix}", like=CIKG, sees=_with_noise(share), change=change)
        for share in NOISES
        for suffix, change in (
            ("", None),
            (", w/o UIR", _without_reconstruction),
            (", with UIR", _with_reconstruction),
        )
    ]
    return (*parts, *noisy)


def _plain(layers: Sequence[int], *, own: bool) -> tuple[GraphConfig, ...]:
    """Give settings without knowledge and parts. own: users have embeddings."""
    decays = (5e-3, 1e-3, 1e-2, 1e-4) if own else (1e-3, 5e-3, 1e-2, 1e-4)
    return tuple(
        _config(
            {
                "layers": number,
                "user_embeddings": own,
                "l2": l2,
                "knowledge_weight": 1.0,
                "contrast": {"weight": 0.0},
                "reconstruction": {"weight": 0.0},
                "trainer": _TRAINER | {"learning_rate": rate},
            }
        )
        for number, l2, rate in _combinations(layers, decays, (0.02, 0.005))
    )


def _cikg() -> tuple[GraphConfig, ...]:
    """Give as many as LightGCN has: of parts, one at a time or none, the knowledge's weight, and users' embeddings."""
    parts: tuple[dict[str, Any], ...] = (
        {},
        {"contrast": {"weight": _SMALL}},
        {"reconstruction": {"weight": _SMALL}},
        {"transe": {"enabled": True}},
        {"contrast": {"weight": 10 * _SMALL}},
    )
    return tuple(
        _config(
            {
                "user_embeddings": own,
                "l2": l2,
                "knowledge_weight": known,
                "contrast": {"weight": 0.0},
                "reconstruction": {"weight": 0.0},
                "trainer": _TRAINER | {"learning_rate": 0.02},
            }
            | part
        )
        for part, known, (own, l2) in _combinations(parts, (0.3, 0.1, 1.0), ((False, 1e-3), (True, 5e-3)))
    )[: len(_plain(_LAYERS, own=True))]


def _cfkg() -> tuple[CFKGConfig, ...]:
    return tuple(
        CFKGConfig(learning_rate=rate, decay=decay)
        for decay, rate in _combinations((1e-5, 1e-6, 0.0, 1e-4), (5e-3, 2e-3, 1e-2))
    )


def _combinations(*choices: Sequence[Any]) -> Iterable[tuple[Any, ...]]:
    """Give all combinations: first the first of each, then those that change one of them, then two, and so on."""
    places = product(*(range(len(choice)) for choice in choices))
    for combination in sorted(places, key=lambda each: sum(map(bool, each))):
        yield tuple(choice[place] for choice, place in zip(choices, combination, strict=True))


def _config(changes: dict[str, Any]) -> GraphConfig:
    return GraphConfig.model_validate(changes)


def _without_reconstruction(config: GraphConfig) -> GraphConfig:
    return config.model_copy(update={"reconstruction": config.reconstruction.model_copy(update={"weight": 0.0})})


def _without_contrast(config: GraphConfig) -> GraphConfig:
    return config.model_copy(update={"contrast": config.contrast.model_copy(update={"weight": 0.0})})


def _without_translation(config: GraphConfig) -> GraphConfig:
    return config.model_copy(update={"transe": config.transe.model_copy(update={"enabled": False})})


def _with_reconstruction(config: GraphConfig) -> GraphConfig:
    weight = config.reconstruction.weight or _SMALL
    return config.model_copy(update={"reconstruction": config.reconstruction.model_copy(update={"weight": weight})})


def _with_linear_reconstruction(config: GraphConfig) -> GraphConfig:
    with_it = _with_reconstruction(config)
    linear = with_it.reconstruction.model_copy(update={"schedule": "linear"})
    return with_it.model_copy(update={"reconstruction": linear})


def _with_strong_contrast(config: GraphConfig) -> GraphConfig:
    with_it = _with_contrast(config)
    strong = with_it.contrast.model_copy(update={"weight": 10 * with_it.contrast.weight})
    return with_it.model_copy(update={"contrast": strong})


def _with_contrast(config: GraphConfig) -> GraphConfig:
    weight = config.contrast.weight or _SMALL
    return config.model_copy(update={"contrast": config.contrast.model_copy(update={"weight": weight})})


def _with_translation(config: GraphConfig) -> GraphConfig:
    return config.model_copy(update={"transe": config.transe.model_copy(update={"enabled": True})})


def _bare(graph: InterestGraph, _: int) -> InterestGraph:
    return graph.without_interests().without_knowledge()


def _with_noise(share: float) -> Callable[[InterestGraph, int], InterestGraph]:
    def sees(graph: InterestGraph, seed: int) -> InterestGraph:
        """Add random edges between users and the interests that somebody holds."""
        rng = np.random.default_rng([seed, 3])
        number = round(share * graph.holds.shape[1])
        added = [rng.integers(graph.num_users, size=number), rng.choice(np.unique(graph.holds[1]), number)]
        return replace(graph, holds=np.concatenate([graph.holds, added], axis=1))

    return sees
