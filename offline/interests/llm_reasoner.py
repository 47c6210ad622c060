"""The reasoner with a language model: any model, asked in two hops or for JSON, alone or in a debate."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.progress import Progress

from serendipity.interests.facts import FactsRule, facts_of
from serendipity.interests.grounding import KEPT, Grounder, seed_of
from serendipity.interests.prompt import UserFacts, bounded
from serendipity.interests.reasoner import MAX_INTERESTS, Interest, InterestPath, UserContext
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.interests.debate import (
    NO_DEBATE,
    Agreed,
    DebateConfig,
    DebateReport,
    Outcome,
    Statement,
    agents_of,
    debate,
)
from serendipity.offline.interests.graph import GraphNode, Hop, UserGraph, graph_of
from serendipity.offline.interests.hops import Prompting
from serendipity.offline.interests.user_facts import EVERYTHING
from serendipity.offline.language_models.language_model import LanguageModel
from serendipity.v1 import records_pb2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReasoningCounts:
    """What became of everything that was said in one run, by the answers of the last round.

    users: asked about; untold: of whom nothing is known, who are not asked about; answers; parse_failures: of them
    those that could not be read; proposals: in the others; grounded: proposals whose node could be told; kept: of them
    those that may be stored; ungrounded, known, repeated: dropped, by reason.
    """

    users: int = 0
    untold: int = 0
    answers: int = 0
    parse_failures: int = 0
    proposals: int = 0
    grounded: int = 0
    kept: int = 0
    ungrounded: int = 0
    known: int = 0
    repeated: int = 0


class LlmReasoner:
    """Latent interests by a language model, grounded in the vocabulary: what does not ground is dropped and counted.

    counts, report: of the latest run; None before the first.
    """

    def __init__(
        self,
        models: LanguageModel | Sequence[LanguageModel],
        grounder: Grounder,
        categories: Sequence[str],
        titles: Sequence[str],
        prompting: Prompting,
        *,
        debate: DebateConfig = NO_DEBATE,
        facts: FactsRule = EVERYTHING,
        batch_users: int = 256,
        progress: Progress | None = None,
    ) -> None:
        """models: one, or several that the agents are given in turn; categories: names by number − 1; titles: of the
        catalogue's items, by row; batch_users: asked about at a time; progress: where it tells how far it is.
        """
        self._models = list(models) if isinstance(models, Sequence) else [models]
        self._grounder = grounder
        self._categories = categories
        self._titles = titles
        self._prompting = prompting
        self._debate = debate
        self._facts = facts
        self._batch_users = batch_users
        self._progress = progress
        self.counts: ReasoningCounts | None = None
        self.report: DebateReport | None = None

    @property
    def name(self) -> str:
        """Models, mode and debate: "llama-1a2b two-hop 2 × 3"."""
        models = "+".join(dict.fromkeys(model.name for model in self._models))
        return f"{models} {self._prompting.name} {self._debate.agents} × {self._debate.rounds}"

    def reason(self, users: Sequence[UserContext], k: int = MAX_INTERESTS) -> list[list[Interest]]:
        """Find at most k interests of every user, best first. Raises LanguageModelError.

        Weights are the consensus score (agreement × similarity), discounted by rank. Users of whom nothing is known
        get none.
        """
        return self.reason_with_graphs(users, k)[0]

    def reason_with_graphs(self, users: Sequence[UserContext], k: int) -> tuple[list[list[Interest]], list[UserGraph]]:
        """Find interests as `reason` does, and the graph of each user with everything that was said and dropped."""
        outcomes: dict[int, Outcome] = {}
        self.report = DebateReport()
        facts = [facts_of(user, self._categories, self._titles.__getitem__, self._facts) for user in users]
        known = [_known(user) for user in users]
        told = [place for place, some in enumerate(facts) if not some.is_empty]
        agents = agents_of(self._models, self._debate)
        task = self._progress.add_task("users reasoned about", total=len(told)) if self._progress else None
        for start in range(0, len(told), self._batch_users):
            places = told[start : start + self._batch_users]
            found, report = debate(
                [facts[place] for place in places],
                [known[place] for place in places],
                agents,
                self._prompting,
                self._grounder,
                rounds=self._debate.rounds,
                num_interests=k,
            )
            outcomes.update(zip(places, found, strict=True))
            self.report += report
            if self._progress and task is not None:
                self._progress.advance(task, len(places))
        self.counts = _count(outcomes.values(), len(users))
        _log.info("%s: %s; %s", self.name, self.counts, self.report)
        nothing = Outcome((), (), 0)
        found_of = [outcomes.get(place, nothing) for place in range(len(users))]
        interests = [_interests(outcome) for outcome in found_of]
        graphs = [
            graph_of(user.user_id, self.name, user.now, _hops(outcome, some))
            for user, outcome, some in zip(users, found_of, facts, strict=True)
        ]
        return interests, graphs


def _known(user: UserContext) -> frozenset[int]:
    return frozenset(user.clicks.categories.tolist()) | {NO_CATEGORY}


def _interests(outcome: Outcome) -> list[Interest]:
    found: list[Interest] = []
    for rank, agreed in enumerate(outcome.agreed):
        # A lone agent's order is its own: what grounds less well may come first.
        most = found[-1].weight if found else 1.0
        found.append(_interest(agreed, min(most, agreed.score / math.log2(2 + rank))))
    return found


def _interest(agreed: Agreed, weight: float) -> Interest:
    path = agreed.interest.path
    return Interest(
        node_id=agreed.interest.node.node_id,
        weight=weight,
        path=InterestPath(
            seed_kind=path.seed_kind,
            seed=path.seed,
            core_demand=path.core_demand,
            latent_interest=path.latent_interest,
            relation=path.relation,
            score=agreed.score,
        ),
    )


def _hops(outcome: Outcome, facts: UserFacts) -> list[Hop]:
    """Lay out everything that the agents said last: first what was agreed on, then what they dropped."""
    hops = []
    for agreed in outcome.agreed:
        interest, path = agreed.interest, agreed.interest.path
        node = GraphNode(
            "",
            "latent interest",
            path.latent_interest,
            interest.node.node_id,
            interest.method.value,
            interest.similarity,
        )
        hops += [
            Hop(path.seed_kind, path.seed, path.core_demand, node, path.relation, agreed.score, agent)
            for agent in agreed.agents
        ]
    told = bounded(facts)
    for statement in outcome.statements:
        hops += _dropped(statement, told)
    return hops


def _dropped(statement: Statement, told: UserFacts) -> list[Hop]:
    hops = []
    for proposal, outcome in zip(statement.proposals, statement.grounded.outcomes, strict=True):
        if outcome != KEPT:
            kind, seed = seed_of(proposal.seed, told)
            node = GraphNode("", "latent interest", proposal.interest or proposal.category, dropped=outcome)
            demand = proposal.demand or proposal.category
            hops.append(Hop(kind, seed, demand, node, records_pb2.RELATION_HYPONYM, 0.0, statement.agent))
    return hops


def _count(outcomes: Collection[Outcome], users: int) -> ReasoningCounts:
    statements = [statement for outcome in outcomes for statement in outcome.statements]
    became = Counter(name for statement in statements for name in statement.grounded.outcomes)
    return ReasoningCounts(
        users=users,
        untold=users - len(outcomes),
        answers=len(statements),
        parse_failures=sum(bool(statement.error) for statement in statements),
        proposals=sum(became.values()),
        grounded=sum(became.values()) - became["ungrounded"],
        kept=became[KEPT],
        ungrounded=became["ungrounded"],
        known=became["known"],
        repeated=became["repeated"],
    )
