"""The directory of a group model: what the LLMs' builder, the snapshot and Triton take over.

group_encoder.pt2     exported program (inputs and outputs of serendipity.groups.model)
config.json           GroupsConfig
profiles.json         list of GroupRecord (protobuf JSON), by group id
report.json           GroupReport
assignments.parquet   user_id, csid (empty in the default group), group_id
groups.json           GroupSpec, written last
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from pydantic import TypeAdapter

from serendipity.groups.model import GROUP_ENCODER, GROUP_SPEC, GroupModelError, read_group_spec
from serendipity.layout import write_atomically
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.report import GroupReport
from serendipity.v1 import records_pb2

CONFIG = "config.json"
PROFILES = "profiles.json"
REPORT = "report.json"
ASSIGNMENTS = "assignments.parquet"

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class StoredModel:
    """What the directory holds of a model. program: group_encoder.pt2; groups: by group id, 0 … G."""

    spec: records_pb2.GroupSpec
    config: GroupsConfig
    groups: tuple[records_pb2.GroupRecord, ...]
    report: GroupReport
    program: bytes

    def write(self, out: Path) -> None:
        """Write everything but the assignments, the spec last."""
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / GROUP_ENCODER, self.program)
        write_atomically(out / CONFIG, self.config.model_dump_json(indent=2).encode())
        groups = [json_format.MessageToDict(group, preserving_proto_field_name=True) for group in self.groups]
        write_atomically(out / PROFILES, json.dumps(groups, indent=2, ensure_ascii=False).encode())
        write_atomically(out / REPORT, json.dumps(asdict(self.report), indent=2).encode())
        spec = json_format.MessageToJson(self.spec, preserving_proto_field_name=True)
        write_atomically(out / GROUP_SPEC, spec.encode())

    @classmethod
    def read(cls, directory: Path) -> StoredModel:
        """Read what `write` wrote. Raises GroupModelError."""
        spec, groups = read_group_spec(directory), read_groups(directory)
        if len(groups) != spec.num_groups + 1:
            raise GroupModelError(
                f"{directory / PROFILES}: found {len(groups)} groups, expected {spec.num_groups + 1}, "
                "the default one included"
            )
        # What is no longer a field was never anything but its default, which is a constant now.
        config = _read_json(directory / CONFIG, partial(GroupsConfig.model_validate_json, extra="ignore"))
        return cls(spec, config, groups, read_report(directory), (directory / GROUP_ENCODER).read_bytes())


def read_groups(directory: Path) -> tuple[records_pb2.GroupRecord, ...]:
    """Read profiles.json, by group id. Raises GroupModelError."""

    def records(text: str) -> tuple[records_pb2.GroupRecord, ...]:
        return tuple(json_format.ParseDict(entry, records_pb2.GroupRecord()) for entry in json.loads(text))

    return _read_json(directory / PROFILES, records)


def read_report(directory: Path) -> GroupReport:
    """Read report.json. Raises GroupModelError."""
    return _read_json(directory / REPORT, TypeAdapter(GroupReport).validate_json)


def _read_json(path: Path, parse: Callable[[str], _Content]) -> _Content:
    """Read a JSON file of the directory. Raises GroupModelError naming it."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
        raise GroupModelError(
            f"{path}: cannot be read ({error!r}); expected what the groups' builder wrote: build the groups anew"
        ) from error
