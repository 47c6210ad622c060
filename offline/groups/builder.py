"""Logs → a group model and every user's group."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.directory import ASSIGNMENTS
from serendipity.offline.groups.group_model import Assignment, GroupModel
from serendipity.offline.language_models.homes import open_language_model
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.parquet import write_rows
from serendipity.v1 import records_pb2


def build_groups(
    logs: Path,
    out: Path,
    config: GroupsConfig,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> records_pb2.GroupSpec:
    """Fit a group model to all clicks of the logs, write it to `out` (serendipity.offline.groups.directory), and
    return its spec.

    cache: directory of completions. Raises GroupsError when no user has enough history, LogsError, LanguageModelError.
    """
    named = config.profile.language_model
    profile_llm = None if named is None else open_language_model(named, cache)
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    model = GroupModel.fit(histories, catalogue, config, profile_llm=profile_llm, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    write_assignments(out / ASSIGNMENTS, histories.user_ids, model.assign(histories))
    model.write(out)
    return model.spec


def write_assignments(path: Path, user_ids: list[str], assignment: Assignment) -> None:
    """Write users' CSIDs and groups; the CSID is empty in the default group."""
    rows = (
        {"user_id": user_id, "csid": csid if group else [], "group_id": group}
        for user_id, csid, group in zip(user_ids, assignment.csid.tolist(), assignment.group_id.tolist(), strict=True)
    )
    write_rows(path, {"user_id": "VARCHAR", "csid": "INTEGER[]", "group_id": "INTEGER"}, rows)
