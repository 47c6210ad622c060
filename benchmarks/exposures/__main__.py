"""Judge the channel by what real users were shown and clicked: KuaiRand's exposures of short videos.

    python -m benchmarks.exposures --data DIR --out docs/results/exposures-kuairand.md

DIR holds the three files that benchmarks.exposures.kuairand describes. They become a host's files below --work, of
which everything is built as of the end of the first week of exposures: that week's clicks are what the towers learn and
the merge is chosen on. The second week is judged. Exposed items are ranked by the channel's score and by controls,
whose parameters are chosen on the last three days of the first week.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.command import facts_of, failed, options_of, publish, read_options
from benchmarks.exposures.channel_scores import ChannelScores, channel_scores
from benchmarks.exposures.controls import CLICK_RATE, CONTROLS, Chosen, Control, Known, choose
from benchmarks.exposures.kept import Arrays, Kept
from benchmarks.exposures.kuairand import EXPOSED_FROM, write_kuairand
from benchmarks.exposures.learned import ScoredLog, learned_scores
from benchmarks.exposures.log import ExposureLog
from benchmarks.exposures.metrics import Resamples
from benchmarks.exposures.page import (
    CHANNEL,
    SHARES,
    Ranked,
    chosen_section,
    log_section,
    metrics_section,
    novel_section,
    relevance_section,
    target,
)
from benchmarks.exposures.relevance import Arm, compare, is_validation
from serendipity.layout import MANIFEST
from serendipity.offline.build_config import BuildConfig, load_build_config
from serendipity.offline.coevolution.config import CoevolutionConfig, ExamplesConfig
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.evaluate.held_out_build import snapshot_of
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.towers.builder import FIT
from serendipity.offline.towers.export import ONNX
from serendipity.tools.arguments import natural, new_directory
from serendipity.tools.build import BUILD_ERRORS
from serendipity.tools.evaluate import build_unpublished

_DAY = 86_400
CHOSEN_FROM = EXPOSED_FROM + 4 * _DAY
"""From here to the cut controls are chosen, fitted on what came before."""
CUT = EXPOSED_FROM + 7 * _DAY
UNTIL = EXPOSED_FROM + 14 * _DAY
"""Unix seconds: the first week ends at the cut, the second is judged."""

_MAIN_TAB = 1
"""Three quarters of the exposures are of this tab; click rates of tabs differ by a factor of ten."""

_TIMES_RATE = f"channel × {CLICK_RATE}"
_LEARNED = "channel, learned from exposures"
_LEARNED_RATES = f"{_LEARNED} and click rates"

_LEAST_EXPOSURES = 16
"""Users with fewer exposures in the two weeks are left out: 3,867 stay, with 95,421 of 222,437 exposures."""

_RANKED = 1_500
"""Users at most whose exposures, novel or not, are ranked."""

_MOMENTS = 2_000
"""Moments that each language model learns from; by default a build takes 10,000 and 8,000."""

_ASKED = 10_000
"""Exposures of the second week that the Relevance LLM is asked about at most: of whole users, drawn."""

_DATA = (
    "Data: a slice of [KuaiRand-Pure](https://kuairand.com) (Gao et al., CIKM 2022), CC BY-SA 4.0: users with "
    f"{_LEAST_EXPOSURES} exposures or more. Exposures were "
    "chosen by the platform's own recommender, none at random: rankings are compared on what it showed, which says "
    "nothing of what it did not show. Times of watches before 25 April are made up, all but each user's last."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert, build, rank and publish the page; returns 1 when data are missing or a builder refuses."""
    parser = options_of("exposures", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="exposures, histories and items")
    parser.add_argument("--work", type=new_directory, metavar="DIR", help="files, builds (default: var/exposures)")
    parser.add_argument("--seed", type=natural, default=0, help="of the resamples and of the users drawn")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    try:
        return publish(_evaluate(args), args.out)
    except BUILD_ERRORS as error:
        return failed(parser, error)


def build_config(host: Path, histories: Histories) -> BuildConfig:
    """Configure a build as of the cut whose merge is learned on the days that controls are chosen on.

    So exposures came before them. No InterestGPT: there are no texts to teach it. The rest is smaller than a build's
    own, to end within half an hour on two cores.
    """
    known = histories.times < CUT
    label_window = float((histories.times[known] >= CHOSEN_FROM).sum() / known.sum())
    return load_build_config(
        None,
        {
            "dataset": str(host),
            "logs": {"until": CUT},
            "interest_gpt": {"enabled": False},
            "towers": {"rows": {"label_window": round(label_window, 4), "num_cuts": 2}, "trainer": {"max_epochs": 1}},
            "coevolution": {
                "examples": {"max_novelty": _MOMENTS, "max_relevance": _MOMENTS},
                "pco": {"cycles": 1, "max_records": 64, "common_categories": 10},
            },
        },
    )


def _evaluate(args: argparse.Namespace) -> str:
    console = Console(stderr=True)
    work = args.work or Path("var/exposures")
    host, build, kept = work / "host", work / "build", Kept(work / "kept")
    write_kuairand(args.data, host, _LEAST_EXPOSURES)
    build_logs(host, work / "logs", LogsConfig())
    histories, catalogue = Histories.read(work / "logs"), Catalogue.read(work / "logs")
    build_unpublished(build_config(host, histories), build, console)
    log = ExposureLog.read(host, histories, catalogue)
    weeks = {"25 April to 1 May": log.between(EXPOSED_FROM, CUT), "2 to 8 May": log.between(CUT, UNTIL)}
    resamples = Resamples(len(histories), args.seed)
    judged = weeks["2 to 8 May"]
    novel, several = with_several(judged.take(judged.novel)), with_several(judged)
    drawn = np.random.default_rng(args.seed).permutation(np.unique(several.users))[:_RANKED]
    shown = {"novel": novel, "ranked": several.take(np.isin(several.users, drawn))}
    console.print("the channel is asked", style="dim")
    asked = _Asked(kept, histories.user_ids, catalogue.item_ids)
    snapshot, tower = snapshot_of(build), build / "towers" / ONNX
    ours = {name: asked.scores(snapshot, tower, some, strict=name == "novel") for name, some in shown.items()}
    console.print("controls are chosen and fitted", style="dim")
    # Equal scores stand in one random order.
    scores = {name: {"random order": np.zeros(len(some))} for name, some in shown.items()}
    chosen = []
    for one, theirs in _controls(kept, histories, catalogue, log, shown):
        chosen.append(one)
        for name, values in theirs.items():
            scores[name][one.control.name] = values
    scores["novel"] |= _learned(asked, build, log, novel, ours["novel"])
    for name, found in ours.items():
        scores[name] |= {_TIMES_RATE: found.scores * scores[name][CLICK_RATE], CHANNEL: found.scores}
    console.print("the Relevance LLM is tuned", style="dim")
    arms = _relevance(args, kept, build, histories, catalogue, log, resamples)
    parts = [
        "# Exposures of KuaiRand",
        "\n".join(f"* {name}: {value}" for name, value in facts_of(args).items()),
        _DATA,
        "Figures with their 95 % intervals, over users. Metrics: `benchmarks/exposures/metrics.py`.",
        f"## What was exposed\n\n{log_section(weeks, resamples)}",
        f"## Novel exposures, ranked\n\n{_novel(Ranked(shown['novel'], scores['novel']), resamples)}",
        "## The online metrics, of what is ranked first\n\n"
        f"{_metrics(Ranked(shown['ranked'], scores['ranked']), resamples)}",
        f"## Controls\n\nChosen on 29 April to 1 May, by novel exposures.\n\n{chosen_section(chosen)}",
        "## Negatives of the Relevance LLM\n\n"
        "Exposures of categories outside the user's latest three. AUC: of all exposures; pairs in order: within users. "
        "Predicted: the mean alignment; ECE: how far alignments are from what was clicked.\n\n"
        f"{relevance_section(arms)}",
    ]
    return "\n\n".join(parts) + "\n"


def _novel(novel: Ranked, resamples: Resamples) -> str:
    in_tab = novel.take(novel.log.tabs == _MAIN_TAB)
    in_tab = in_tab.take(several_of(in_tab.log))
    names = [control.name for control in CONTROLS]
    clicks_alone = [name for name in names if name != CLICK_RATE]
    return (
        "The second week's, of users with more than one. The first tenth is ⌈m / 10⌉ of a user's m exposures; of all: "
        f"of those of all users together. The channel scored {_scored(novel)}; what it did not comes last.\n\n"
        "The target is a click rate of the channel's first tenth above every control's.\n\n"
        f"* Controls that know clicks alone, as the channel does: {target(novel, clicks_alone, resamples)}.\n"
        f"* All controls, {CLICK_RATE} with them, which knows what was shown: {target(novel, names, resamples)}.\n\n"
        f"{novel_section(novel, resamples)}\n\nIn tab {_MAIN_TAB} alone: {novel_section(in_tab, resamples)}\n\n"
        "Three more rankings are no controls, and were chosen by nothing; they tell what knowing exposures might be "
        f"worth to the channel. *{_TIMES_RATE}*: the product of both scores. *{_LEARNED}*: trees on the same features, "
        "fitted on what of 29 April to 1 May's novel exposures was clicked, where a build fits them on a replay. "
        f"*{_LEARNED_RATES}*: those that read the item's click rate as well."
    )


def _metrics(ranked: Ranked, resamples: Resamples) -> str:
    tables = [metrics_section(ranked, share, resamples) for share in SHARES]
    return "\n\n".join(
        [
            f"Exposures of the second week, novel or not, of {len(np.unique(ranked.log.users)):,} users drawn of those "
            f"with more than one. The channel scored {_scored(ranked)}.",
            *tables,
        ]
    )


def several_of(log: ExposureLog) -> NDArray[np.bool_]:
    """Mark the exposures of users who have more than one, [n] bool: the others' cannot be ranked."""
    marked: NDArray[np.bool_] = np.bincount(log.users)[log.users] > 1
    return marked


def with_several(log: ExposureLog) -> ExposureLog:
    """Keep the exposures of users who have more than one."""
    return log.take(several_of(log))


def _scored(ranked: Ranked) -> str:
    return f"{np.isfinite(ranked.scores[CHANNEL]).sum():,} of {len(ranked.log):,}"


def _controls(
    kept: Kept, histories: Histories, catalogue: Catalogue, log: ExposureLog, shown: Mapping[str, ExposureLog]
) -> Iterator[tuple[Chosen, Mapping[str, NDArray[np.float64]]]]:
    """Choose every control before the cut, fit it on all that came before it, and score what is shown, by name."""
    validation = log.between(CHOSEN_FROM, CUT)
    validation = validation.take(validation.novel)

    @cache
    def known(cut: int, until: int) -> Known:
        return Known.before(histories, catalogue, log, cut, until)

    def make(control: Control) -> Arrays:
        best = choose(control, known(CHOSEN_FROM, CUT), validation)
        rank = control.fit(known(CUT, UNTIL), best.parameters)
        number = control.tried.index(best.parameters)
        return {"number": np.array(number), "validation": np.array(best.validation)} | {
            name: rank(some) for name, some in shown.items()
        }

    logs = [some.identity for some in (log, *shown.values())]
    for control in CONTROLS:
        tried = json.dumps([control.name, list(control.tried)])
        made = kept.arrays(control.name.replace(" ", "-"), [tried.encode(), *logs], partial(make, control))
        one = Chosen(control, control.tried[int(made["number"])], float(made["validation"]))
        yield one, {name: made[name] for name in shown}


@dataclass(frozen=True)
class _Asked:
    """Whom the channel is asked for. user_ids, item_ids: of the logs that exposures are numbered by."""

    kept: Kept
    user_ids: Sequence[str]
    item_ids: Sequence[str]

    def scores(self, snapshot: Path, tower: Path, log: ExposureLog, *, strict: bool) -> ChannelScores:
        """Score exposures by a snapshot and the user tower it was made with."""

        def make() -> Arrays:
            return vars(channel_scores(snapshot, tower, self.user_ids, self.item_ids, log, strict=strict))

        made_of = [snapshot.name.encode(), bytes([strict]), log.identity]
        return ChannelScores(**self.kept.arrays("channel", made_of, make))


def _learned(
    asked: _Asked, build: Path, log: ExposureLog, novel: ExposureLog, ours: ChannelScores
) -> dict[str, NDArray[np.float64]]:
    """Score the judged exposures by trees that learned from those before the cut, by name."""
    validation = log.between(CHOSEN_FROM, CUT)
    validation = validation.take(validation.novel)
    (manifest,) = (build / "validation" / "snapshot").glob(f"*/{MANIFEST}")
    scored = asked.scores(manifest.parent, build / "towers" / FIT / ONNX, validation, strict=True)
    learned = ScoredLog(validation, scored, log.between(0, CHOSEN_FROM))
    judged = ScoredLog(novel, ours, log.between(0, CUT))
    return {
        _LEARNED: learned_scores(learned, judged, with_rates=False),
        _LEARNED_RATES: learned_scores(learned, judged, with_rates=True),
    }


def _relevance(
    args: argparse.Namespace,
    kept: Kept,
    build: Path,
    histories: Histories,
    catalogue: Catalogue,
    log: ExposureLog,
    resamples: Resamples,
) -> list[Arm]:
    until = Histories.read(build / "logs")
    known = (until, Catalogue.read(build / "logs"), Exposures.read(build / "logs", len(until), catalogue))
    first, second = log.between(0, CUT), log.between(CUT, UNTIL)
    config = CoevolutionConfig(examples=ExamplesConfig(max_relevance=_MOMENTS))
    unseen = is_validation(first, histories, config)
    order = np.random.default_rng(args.seed).permutation(len(histories))
    drawn = order[np.cumsum(np.bincount(second.users, minlength=len(histories))[order]) <= _ASKED]
    samples = {
        "validation: the first week's, of users that nothing is trained on": first.take(unseen),
        "test: the second week's, of users drawn at random": second.take(np.isin(second.users, drawn)),
    }
    return compare(kept, build / "groups", config, known, histories, samples, first.take(~unseen), resamples)


if __name__ == "__main__":
    sys.exit(main())
