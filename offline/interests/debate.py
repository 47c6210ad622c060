"""Several agents answer, see each other's answers and answer again, until they agree or the rounds are over.

Du et al., "Improving Factuality and Reasoning in Language Models through Multiagent Debate" (arXiv 2305.14325). Agents
differ by model, temperature and seed. What they see of each other is cleaned and bounded: an answer is data as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Annotated

from pydantic import Field

from serendipity.interests.answer import Proposal
from serendipity.interests.grounding import GroundedAnswer, GroundedInterest, Grounder, ground_answer
from serendipity.interests.prompt import UserFacts
from serendipity.offline.configuration import Configuration
from serendipity.offline.interests.hops import Prompting, Reply, Shown
from serendipity.offline.language_models.language_model import LanguageModel, Sampling


class DebateConfig(Configuration):
    """N agents × R rounds. 1 × 1 is no debate; 1 × R is one agent that verifies itself."""

    agents: Annotated[int, Field(ge=1, le=8)] = 1
    """N."""
    rounds: Annotated[int, Field(ge=1, le=8)] = 1
    """R at most; a user's debate ends early when no agent changes what its answer grounds in."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Of every agent but the first, which takes the likeliest tokens."""
    seed: int = 0
    """Agent i samples with seed + i."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """Of one answer."""


NO_DEBATE = DebateConfig()


@dataclass(frozen=True)
class Agent:
    """One debater. name: on the edges of graphs."""

    name: str
    model: LanguageModel
    sampling: Sampling


def agents_of(models: Sequence[LanguageModel], config: DebateConfig) -> list[Agent]:
    """Make the agents of a configuration; models are given out in turn. Raises ValueError without models."""
    if not models:
        raise ValueError("debate: found no language models, expected at least one")
    return [
        Agent(
            name=f"agent {number + 1}",
            model=models[number % len(models)],
            sampling=Sampling(
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature if number else 0.0,
                seed=config.seed + number,
            ),
        )
        for number in range(config.agents)
    ]


@dataclass(frozen=True)
class Statement:
    """What an agent said of a user last: its proposals, what they ground in, and why they could not be read."""

    agent: str
    proposals: tuple[Proposal, ...]
    grounded: GroundedAnswer
    error: str

    @property
    def nodes(self) -> frozenset[int]:
        """Nodes the answer grounds in."""
        return frozenset(interest.node.node_id for interest in self.grounded.interests)


@dataclass(frozen=True)
class Agreed:
    """An interest after the debate. score: Σ over agents of the similarity it grounds with, ÷ N: 0 to 1."""

    interest: GroundedInterest
    score: float
    agents: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """A user's debate. agreed: best first; statements: of the last round, by agent; rounds: that were held."""

    agreed: tuple[Agreed, ...]
    statements: tuple[Statement, ...]
    rounds: int


@dataclass(frozen=True)
class DebateReport:
    """Cost and effect of debates. stopped_early: users whose agents agreed to stop before the last round;
    parse_failures: answers that could not be read; calls: completions asked for; tokens: read and written.
    """

    users: int = 0
    stopped_early: int = 0
    parse_failures: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: DebateReport) -> DebateReport:
        return DebateReport(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def debate(
    users: Sequence[UserFacts],
    known: Sequence[Collection[int]],
    agents: Sequence[Agent],
    prompting: Prompting,
    grounder: Grounder,
    *,
    rounds: int,
    num_interests: int,
) -> tuple[list[Outcome], DebateReport]:
    """Debate the interests of many users at once.

    known: per user, numbers of the categories among the latest 200 clicks; rounds: at most; num_interests: of one
    answer and of the consensus. An answer that cannot be read leaves the agent with what it said before. Raises
    LanguageModelError.
    """
    said: list[list[Statement]] = [[] for _ in users]
    held = [0] * len(users)
    every_reply: list[Reply] = []
    open_users = list(range(len(users)))
    for number in range(1, rounds + 1):
        if not open_users:
            break
        before = {place: said[place] for place in open_users}
        replies: dict[int, list[Reply]] = {place: [] for place in open_users}
        facts = [users[place] for place in open_users]
        for index, agent in enumerate(agents):
            shown = [_shown(before[place], index) for place in open_users] if number > 1 else None
            for place, reply in zip(open_users, prompting.ask(agent.model, facts, agent.sampling, shown), strict=True):
                replies[place].append(reply)
        changed: dict[int, list[bool]] = {}
        for place in open_users:
            held[place] = number
            said[place] = [
                _statement(agent, reply, before[place][index] if number > 1 else None, users[place], known[place],
                           grounder, num_interests)
                for index, (agent, reply) in enumerate(zip(agents, replies[place], strict=True))
            ]  # fmt: skip
            changed[place] = [
                number == 1 or now.nodes != then.nodes
                for now, then in zip(said[place], before[place] or said[place], strict=True)
            ]
        every_reply += [reply for user in replies.values() for reply in user]
        open_users = [place for place in open_users if any(changed[place])]
    outcomes = [
        Outcome(tuple(_consensus(statements, num_interests)), tuple(statements), count)
        for statements, count in zip(said, held, strict=True)
    ]
    return outcomes, DebateReport(
        users=len(users),
        stopped_early=sum(count < rounds for count in held),
        parse_failures=sum(bool(reply.error) for reply in every_reply),
        calls=sum(reply.calls for reply in every_reply),
        prompt_tokens=sum(reply.prompt_tokens for reply in every_reply),
        completion_tokens=sum(reply.completion_tokens for reply in every_reply),
    )


def _shown(statements: Sequence[Statement], index: int) -> Shown:
    others = [statement.proposals for place, statement in enumerate(statements) if place != index]
    return Shown(statements[index].proposals, others)


def _statement(
    agent: Agent,
    reply: Reply,
    before: Statement | None,
    facts: UserFacts,
    known: Collection[int],
    grounder: Grounder,
    num_interests: int,
) -> Statement:
    if not reply.proposals and before is not None:
        return replace(before, error=reply.error)
    grounded = ground_answer(reply.proposals, facts, grounder, known, num_interests)
    return Statement(agent.name, reply.proposals, grounded, reply.error)


def _consensus(statements: Sequence[Statement], num_interests: int) -> list[Agreed]:
    """Order interests by agreement weighted with grounding; ties by the best rank any agent gave them, then by id.

    A lone agent has nobody to agree with: its own order stands.
    """
    scores: dict[int, float] = defaultdict(float)
    ranks: dict[int, int] = {}
    agents: dict[int, list[str]] = defaultdict(list)
    chosen: dict[int, GroundedInterest] = {}
    for statement in statements:
        for rank, interest in enumerate(statement.grounded.interests):
            node_id = interest.node.node_id
            scores[node_id] += interest.similarity / len(statements)
            ranks[node_id] = min(rank, ranks.get(node_id, rank))
            agents[node_id].append(statement.agent)
            # The path of the agent whose words ground best is the one that is told.
            if node_id not in chosen or interest.similarity > chosen[node_id].similarity:
                chosen[node_id] = interest
    # Scores are compared rounded: sums of the same numbers in another order must not decide.
    alone = len(statements) == 1
    best = sorted(scores, key=lambda node_id: (0.0 if alone else -round(scores[node_id], 6), ranks[node_id], node_id))
    return [
        Agreed(chosen[node_id], min(1.0, scores[node_id]), tuple(agents[node_id])) for node_id in best[:num_interests]
    ]
