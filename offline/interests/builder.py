"""Logs → latent interests of every user, their paths and graphs, and the vocabulary they are grounded in.

nodes.parquet         the interest vocabulary, see `node_table`
interests.parquet     the interests of every user and the paths to them, see `interest_table`
graphs.parquet        the knowledge graph of every user, see `graph_table`
interest_vectors.npy  [nodes, D] float32, L2-normalised, row = node_id
reasoner.npz          the taxonomy reasoner, fitted (TaxonomyReasoner.read)
threshold.json        how the grounding threshold was tuned (ThresholdReport); absent where it was given
interests.json        see `summary`; written last
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import Progress

from serendipity.interests.reasoner import MAX_INTERESTS, Interest, Reasoner, UserContext
from serendipity.layout import write_atomically
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.interests.clusters import Growth, NamedInterest, grow
from serendipity.offline.interests.config import InterestsConfig, LlmReasonerConfig
from serendipity.offline.interests.contexts import cold_context, contexts_at
from serendipity.offline.interests.graph import UserGraph, graph_of_interests
from serendipity.offline.interests.graph_table import write_graphs
from serendipity.offline.interests.grounding_threshold import tune_threshold
from serendipity.offline.interests.hops import prompting_of
from serendipity.offline.interests.interest_table import write_interests
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.interests.node_table import read_nodes, vocabulary_id_of, write_nodes
from serendipity.offline.interests.summary import INTEREST_VECTORS, InterestsSummary
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.interests.vocabulary import Vocabulary
from serendipity.offline.language_models.language_model import LanguageModel
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories

REASONER = "reasoner.npz"
THRESHOLD_REPORT = "threshold.json"

MakeReasoner = Callable[[Vocabulary, Catalogue], Reasoner]
"""Makes a reasoner that is ready to answer in a vocabulary of a catalogue."""


def build_interests(
    logs: Path,
    interests: Path,
    encoder: TextEncoder,
    config: InterestsConfig | None = None,
    *,
    make_reasoner: MakeReasoner | None = None,
    k: int = MAX_INTERESTS,
    cache: Path | None = None,
) -> InterestsSummary:
    """Reason about every user as of the end of the logs and write the interests directory.

    make_reasoner: of the reasoner that answers for users of whom anything is known; None: the taxonomy reasoner, which
    answers for the others in any case. cache: of the encoder's vectors. Ids of nodes and vocabulary of an earlier build
    in the same directory are kept. Raises what the reasoner raises.
    """
    config = config or InterestsConfig()
    interests.mkdir(parents=True, exist_ok=True)
    catalogue, histories = Catalogue.read(logs), Histories.read(logs)
    until = LogsSummary.read(logs_directory(logs)).events_until
    before = read_nodes(interests)
    taxonomy = Taxonomy.from_catalogue(catalogue, before.known if before else ())
    encode = partial(encoder.encode, cache=cache)
    vectors = encode(taxonomy.texts)
    (interests / THRESHOLD_REPORT).unlink(missing_ok=True)
    threshold = config.grounding_threshold
    if threshold is None:
        tuned = tune_threshold(taxonomy, catalogue, vectors, encoder.encode)
        threshold = tuned.threshold
        write_atomically(interests / THRESHOLD_REPORT, json.dumps(asdict(tuned), indent=2, sort_keys=True).encode())
    of_nobody = fit_reasoner(taxonomy, histories, until)
    reasoner: Reasoner = of_nobody
    if make_reasoner:
        vocabulary = Vocabulary(
            nodes=taxonomy.nodes,
            categories=taxonomy.categories,
            vectors=vectors,
            encoder=encoder.name,
            vocabulary_id=before.vocabulary_id if before else vocabulary_id_of(taxonomy.nodes),
            taxonomy_hash=taxonomy.hash,
            grounding_threshold=threshold,
        )
        reasoner = make_reasoner(vocabulary, catalogue)
    found, graphs = _reason(reasoner, contexts_at(histories, until), k)
    growth = grow(taxonomy.nodes, _named(found), encoder.encode, config.clusters)
    if growth.places:
        found = [_placed(user, taxonomy, growth) for user in found]
        graphs = (_placed_in_graph(graph, taxonomy, growth) for graph in graphs)
        taxonomy = Taxonomy.from_catalogue(catalogue, growth.known)
        vectors = encode(taxonomy.texts)
    vocabulary_id = before.vocabulary_id if before else vocabulary_id_of(taxonomy.nodes)
    write_nodes(interests, taxonomy, vocabulary_id)
    (default,) = of_nobody.reason([cold_context(until)], k)
    user_ids: list[str | None] = [*histories.user_ids, None]
    write_interests(interests, zip(user_ids, [*found, default], strict=True))
    write_graphs(interests, graphs)
    write_atomically(interests / REASONER, of_nobody.content())
    content = io.BytesIO()
    np.save(content, vectors)
    write_atomically(interests / INTEREST_VECTORS, content.getvalue())
    summary = InterestsSummary(
        taxonomy_hash=taxonomy.hash,
        vocabulary_id=vocabulary_id,
        grounding_threshold=threshold,
        reasoner=reasoner.name,
        encoder=encoder.name,
        interest_dim=encoder.dim,
        novelty_level=taxonomy.novelty_level,
        generated_at=until,
        num_nodes=len(taxonomy),
        num_reasoner_nodes=sum(1 for node in taxonomy.nodes if not node.of_catalogue),
        num_users=sum(1 for user in found if user),
        num_interests=sum(len(user) for user in found),
    )
    summary.write(interests)
    return summary


def llm_reasoner(
    config: LlmReasonerConfig,
    models: Sequence[LanguageModel],
    encoder: TextEncoder,
    progress: Progress | None = None,
) -> MakeReasoner:
    """Make reasoners of a configuration with its models opened. encoder: the one that made the vocabulary's vectors."""

    def make(vocabulary: Vocabulary, catalogue: Catalogue) -> LlmReasoner:
        return LlmReasoner(
            models,
            vocabulary.grounder(encoder),
            vocabulary.categories,
            catalogue.titles,
            prompting_of(config.mode, config.style),
            debate=config.debate,
            facts=config.facts,
            progress=progress,
        )

    return make


def _reason(
    reasoner: Reasoner, users: Sequence[UserContext], k: int
) -> tuple[list[list[Interest]], Iterable[UserGraph]]:
    """Find every user's interests and graph; graphs that are drawn from paths alone are drawn as they are written."""
    if isinstance(reasoner, LlmReasoner):
        return reasoner.reason_with_graphs(users, k)
    found = reasoner.reason(users, k)
    graphs = (
        graph_of_interests(user.user_id, reasoner.name, user.now, interests)
        for user, interests in zip(users, found, strict=True)
    )
    return found, graphs


def _named(found: Sequence[Sequence[Interest]]) -> Iterable[NamedInterest]:
    for user, interests in enumerate(found):
        for interest in interests:
            yield NamedInterest(user, interest.node_id, interest.path.latent_interest)


def _placed(interests: Sequence[Interest], taxonomy: Taxonomy, growth: Growth) -> list[Interest]:
    """Move a user's interests to the nodes that their names have now, each node once."""
    placed: dict[int, Interest] = {}
    for interest in interests:
        node_id = _place(interest.node_id, interest.path.latent_interest, taxonomy, growth)
        placed.setdefault(node_id, replace(interest, node_id=node_id))
    return list(placed.values())


def _placed_in_graph(graph: UserGraph, taxonomy: Taxonomy, growth: Growth) -> UserGraph:
    nodes = (
        node
        if node.interest_node is None
        else replace(node, interest_node=_place(node.interest_node, node.text, taxonomy, growth))
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def _place(node_id: int, name: str, taxonomy: Taxonomy, growth: Growth) -> int:
    (category,) = taxonomy.nodes[node_id].categories
    found = growth.node_of(category, name)
    return node_id if found is None else found
