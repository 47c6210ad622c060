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
from functools import partial
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from pydantic import TypeAdapter

from serendipity.groups.model import GroupModelError, read_group_spec
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.report import GroupReport
from serendipity.v1 import records_pb2

CONFIG = "config.json"
PROFILES = "profiles.json"
REPORT = "report.json"
ASSIGNMENTS = "assignments.parquet"

_Content = TypeVar("_Content")


def read_config(directory: Path) -> GroupsConfig:
    """Read config.json. Raises GroupModelError."""
    # What is no longer a field was never anything but its default, which is a constant now.
    return _read_json(directory / CONFIG, partial(GroupsConfig.model_validate_json, extra="ignore"))


def read_groups(directory: Path) -> tuple[records_pb2.GroupRecord, ...]:
    """Read profiles.json, by group id, 0 … G. Raises GroupModelError."""

    def records(text: str) -> tuple[records_pb2.GroupRecord, ...]:
        return tuple(json_format.ParseDict(entry, records_pb2.GroupRecord()) for entry in json.loads(text))

    groups, expected = _read_json(directory / PROFILES, records), read_group_spec(directory).num_groups + 1
    if len(groups) != expected:
        raise GroupModelError(
            f"{directory / PROFILES}: found {len(groups)} groups, expected {expected}, the default one included"
        )
    return groups


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
