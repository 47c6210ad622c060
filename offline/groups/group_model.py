"""A trained group model: fits, assigns users as of any moment, and describes its groups."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from google.protobuf import json_format
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.features import FeatureAssembler
from serendipity.groups.model import GROUP_ENCODER, GROUP_SPEC, read_group_spec
from serendipity.groups.sequence import DEFAULT_GROUP, Counted, LongSequenceRule
from serendipity.layout import write_atomically
from serendipity.offline.errors import BuilderError
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.directory import CONFIG, PROFILES, REPORT, read_config, read_groups, read_report
from serendipity.offline.groups.export import export_group_encoder, read_group_encoder
from serendipity.offline.groups.facts import category_shares, describe, group_facts
from serendipity.offline.groups.fitting import POSITIONS, Fitted, fit_encoder
from serendipity.offline.groups.group_encoder import GroupEncoder
from serendipity.offline.groups.interest_encoder import interests_after
from serendipity.offline.groups.kept_histories import KeptHistories, sequence_rule
from serendipity.offline.groups.profile_llm import write_profiles
from serendipity.offline.groups.report import GroupReport
from serendipity.offline.groups.representatives import member, nearest_users
from serendipity.offline.language_models.language_model import LanguageModel
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, profile_fields
from serendipity.offline.towers.threads import limited_threads
from serendipity.v1 import records_pb2

_NAMES = 3
"""Categories of each kind (set apart, often, rarely) that a profile names at most."""

_REPRESENTATIVES = 10
"""Users nearest to a group's centroid that the Profile LLM is told of."""

_TITLES = 5
"""Titles of each of them, the latest, that it is shown."""


class GroupsError(BuilderError):
    """Groups cannot be made of, or used with, what was given: names it, what was found and what was expected."""


@dataclass(frozen=True)
class Assignment:
    """Users' groups as of a moment. csid: [U, layers] int32, −1 in the default group; group_id: [U] int32."""

    csid: NDArray[np.int32]
    group_id: NDArray[np.int32]


@dataclass(frozen=True)
class GroupModel:
    """Encoder, clusters and profiles.

    encoder: in evaluation mode. rule: which clicks it is fed. fields: numbers of profile values. groups: records by
    group id, 0 … G. exported: the program it was read from; None: it was fitted, and is exported when it is asked for.
    """

    encoder: GroupEncoder
    rule: LongSequenceRule
    fields: FeatureAssembler
    groups: tuple[records_pb2.GroupRecord, ...]
    report: GroupReport
    config: GroupsConfig
    exported: bytes | None = None

    @classmethod
    def fit(
        cls,
        histories: Histories,
        catalogue: Catalogue,
        config: GroupsConfig,
        *,
        profile_llm: LanguageModel | None = None,
        progress: Progress | None = None,
    ) -> GroupModel:
        """Learn from every click.

        The seed decides everything random; torch's own random state is left as it was. Raises GroupsError when no user
        has enough kept clicks, LanguageModelError when the Profile LLM does not answer.
        """
        rule = sequence_rule(histories, config.sequence, config.interest.sequence_length)
        fields = FeatureAssembler(0, 0, 0, 0, profile_fields(histories))
        kept = KeptHistories.of(histories, rule, fields)
        if not (kept.lengths >= rule.min_clicks).any():
            raise GroupsError(
                f"histories: found no user with {rule.min_clicks} kept clicks (threshold {rule.threshold} by "
                f"{rule.counted}) among {len(histories)}, expected some; lower sequence.threshold or min_clicks"
            )
        with limited_threads(config.threads):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                fitted = fit_encoder(kept, catalogue.item_categories, fields, config, progress)
            report = GroupReport.of(fitted, len(histories), config.quantizer.codebook_size)
            groups = _describe_groups(fitted, kept, histories, catalogue, profile_llm)
        return cls(fitted.encoder, rule, fields, groups, report, config)

    @classmethod
    def read(cls, directory: Path) -> GroupModel:
        """Read a model from the directory of one. Raises GroupModelError, or ExportError of the program."""
        spec, config = read_group_spec(directory), read_config(directory)
        counted: Counted = "item" if spec.counted == "item" else "category"
        fields = {field.name: {value: i for i, value in enumerate(field.values, 1)} for field in spec.profile_fields}
        return cls(
            encoder=read_group_encoder(directory / GROUP_ENCODER, config),
            rule=LongSequenceRule(spec.click_threshold, counted, spec.sequence_length, spec.min_clicks),
            fields=FeatureAssembler(0, 0, 0, 0, fields),
            groups=read_groups(directory),
            report=read_report(directory),
            config=config,
            exported=(directory / GROUP_ENCODER).read_bytes(),
        )

    def write(self, out: Path) -> None:
        """Write the model's directory (serendipity.offline.groups.directory), the spec last."""
        out.mkdir(parents=True, exist_ok=True)
        groups = [json_format.MessageToDict(group, preserving_proto_field_name=True) for group in self.groups]
        spec = json_format.MessageToJson(self.spec, preserving_proto_field_name=True)
        write_atomically(out / GROUP_ENCODER, self.program)
        write_atomically(out / CONFIG, self.config.model_dump_json(indent=2).encode())
        write_atomically(out / PROFILES, json.dumps(groups, indent=2, ensure_ascii=False).encode())
        write_atomically(out / REPORT, json.dumps(asdict(self.report), indent=2).encode())
        write_atomically(out / GROUP_SPEC, spec.encode())

    @property
    def profiles(self) -> list[str]:
        """Textual profiles by group id, 0 … G."""
        return [group.profile for group in self.groups]

    @cached_property
    def program(self) -> bytes:
        """The exported encoder (group_encoder.pt2)."""
        if self.exported is not None:
            return self.exported
        with tempfile.TemporaryDirectory() as directory, limited_threads(self.config.threads):
            export_group_encoder(self.encoder, self.rule.length, self.fields.profile_width, Path(directory))
            return (Path(directory) / GROUP_ENCODER).read_bytes()

    @cached_property
    def spec(self) -> records_pb2.GroupSpec:
        """What the encoder is fed, under the fingerprint of the exported program."""
        return records_pb2.GroupSpec(
            group_model_id=hashlib.sha256(self.program).hexdigest()[:16],
            sequence_length=self.rule.length,
            click_threshold=self.rule.threshold,
            counted=self.rule.counted,
            min_clicks=self.rule.min_clicks,
            num_groups=self.encoder.num_groups,
            codebook_size=self.config.quantizer.codebook_size,
            num_quantizers=self.config.quantizer.num_quantizers,
            profile_fields=[
                records_pb2.ProfileField(name=name, values=sorted(values, key=values.__getitem__))
                for name, values in self.fields.profile_fields.items()
            ],
        )

    def assign(self, histories: Histories, times: NDArray[np.int64] | None = None) -> Assignment:
        """Tell every user's group from the clicks strictly before times[u] (by default, all clicks).

        histories: of the catalogue the model was fitted to. times: [U] int64, Unix seconds.
        """
        interests, lengths = self._interests(histories, times)
        with limited_threads(self.config.threads), torch.inference_mode():
            codes, groups = self.encoder.groups(interests)
        cold = lengths < self.rule.min_clicks
        return Assignment(
            csid=np.where(cold[:, None], -1, codes.numpy()).astype(np.int32),
            group_id=np.where(cold, DEFAULT_GROUP, groups.numpy()).astype(np.int32),
        )

    def vectors(self, histories: Histories, times: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Give long-term interests, [U, d] float32, from the clicks strictly before times[u] (by default, all)."""
        vectors: NDArray[np.float32] = self._interests(histories, times)[0].numpy()
        return vectors

    def click_groups(self, histories: Histories) -> NDArray[np.int32]:
        """Tell for every click its user's group strictly before it: [n] int32, 0 where there was too little history.

        What `assign` answers as of the click's time, from one pass over every history. Clicks of the same second do
        not know of each other.
        """
        kept = KeptHistories.of(histories, self.rule, self.fields)
        # A place for every number of kept clicks of every user, none included.
        firsts = kept.offsets[:-1] + np.arange(len(kept))
        groups = np.full(len(kept.items) + len(kept), DEFAULT_GROUP, np.int32)
        with limited_threads(self.config.threads), torch.inference_mode():
            for some in kept.latest(kept.lengths, None, POSITIONS):
                interests = self.encoder.interest.interests(
                    torch.from_numpy(some.items), torch.from_numpy(some.profiles)
                )
                numbers = np.arange(interests.shape[1])
                asked = (numbers >= self.rule.min_clicks) & (numbers <= some.lengths[:, None])
                if asked.any():
                    _, found = self.encoder.groups(interests[torch.from_numpy(asked)])
                    groups[(firsts[some.users, None] + numbers)[asked]] = found.numpy()
        owners = histories.users
        known = kept.kept_before[_first_of_second(histories)] - kept.offsets[owners]
        found_groups: NDArray[np.int32] = groups[firsts[owners] + known]
        return found_groups

    def _interests(
        self, histories: Histories, times: NDArray[np.int64] | None
    ) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Read every user's long-term interest, [U, d], and how many kept clicks there are, [U]."""
        kept = KeptHistories.of(histories, self.rule, self.fields)
        ends = kept.lengths if times is None else kept.lengths_before(histories, times)
        interests = torch.empty(len(kept), self.encoder.interest.dim)
        with limited_threads(self.config.threads), torch.inference_mode():
            for some in kept.latest(ends, self.rule.length, POSITIONS):
                interests[torch.from_numpy(some.users)] = interests_after(self.encoder.interest, some)
        return interests, ends


def _describe_groups(
    fitted: Fitted,
    kept: KeptHistories,
    histories: Histories,
    catalogue: Catalogue,
    profile_llm: LanguageModel | None,
) -> tuple[records_pb2.GroupRecord, ...]:
    """Write the profiles: from what sets groups apart alone, or with a sentence of the Profile LLM's behind it.

    What a user chooses is told from all kept clicks, however long ago: a profile is what the LLMs know of long
    histories.
    """
    group_ids = np.zeros(len(histories), np.int32)
    group_ids[fitted.warm] = fitted.group_ids.numpy()
    num_groups = fitted.encoder.num_groups
    owners = np.repeat(np.arange(len(kept)), kept.lengths)
    chosen = catalogue.item_categories[kept.items - 1]
    shares = category_shares(owners, chosen, len(histories), len(catalogue.categories))
    facts = group_facts(shares, group_ids, num_groups, _NAMES)
    profiles = [describe(fact, catalogue.categories) for fact in facts]
    if profile_llm is not None:
        with torch.inference_mode():
            latents = fitted.encoder.rq_vae.latent(fitted.interests).numpy()
        nearest = nearest_users(latents, fitted.group_ids.numpy(), fitted.encoder.centroids.numpy(), _REPRESENTATIVES)
        members = [[member(histories, int(user), catalogue, _TITLES) for user in fitted.warm[rows]] for rows in nearest]
        # The default group is everybody: it has no members nearest to it.
        profiles[1:] = write_profiles(profiles[1:], members, profile_llm)
    users = np.bincount(group_ids, minlength=num_groups + 1)
    return tuple(
        records_pb2.GroupRecord(group_id=group, profile=profile, users=int(count), categories=fact.apart or fact.often)
        for group, (profile, count, fact) in enumerate(zip(profiles, users, facts, strict=True))
    )


def _first_of_second(histories: Histories) -> NDArray[np.int64]:
    """Find, for every click, the first one of the same user at the same second. [n] int64."""
    places = np.arange(len(histories.times))
    begins = np.ones(len(places), np.bool_)
    begins[1:] = (np.diff(histories.times) != 0) | (np.diff(histories.users) != 0)
    first: NDArray[np.int64] = np.maximum.accumulate(np.where(begins, places, 0))
    return first
