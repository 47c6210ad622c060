"""Hosts unlike any other: each is built to the end, or refused at the first step in one line."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from serendipity.offline.build import build
from serendipity.offline.build_config import load_build_config
from serendipity.offline.logs.errors import LogsError
from serendipity.tools import pipeline
from tests.fixtures.small_host import START, write_small_host
from tests.offline.test_build import SMALL

NOW = START + 200 * 86_400

BUILT = {
    "twenty years, users without attributes, items without a path":
    "UPDATE events SET timestamp = $start - 20 * 365 * 86400 + (timestamp - $start) * 60;"
    "DROP TABLE users; UPDATE items SET path = NULL WHERE hash(item_id) % 3 = 0",
    "one hour of data, ids of any script":
    "UPDATE events SET timestamp = $start + (timestamp - $start) * 3600 // (121 * 86400);"
    "UPDATE events SET user_id = 'пользователь ' || user_id, item_id = '商品 ' || item_id || ' é';"
    "UPDATE items SET item_id = '商品 ' || item_id || ' é'; UPDATE users SET user_id = 'пользователь ' || user_id",
    "a dozen users, and only views, which count":
    "DELETE FROM events WHERE user_id >= 'u0012'; UPDATE events SET event = 'view' WHERE event = 'click'",
}  # fmt: skip
"""Name → SQL that changes the tables of a small host."""

WHOLE = ("one hour of data, ids of any script",)
"""Built with groups and language models, which take most of a build's time."""

REFUSED = {
    "three users": ("DELETE FROM events WHERE user_id >= 'u0003'", r"^[^\n]*expected at least[^\n]*$"),
    "only views": ("UPDATE events SET event = 'view'", r"users with clicks \(logs.click_types\): found 0, expected"),
    "one category": ("UPDATE items SET path = ['all', 'all']", r"novelty at level 1 .*: found 1 top-level categories"),
    "every event at once": ("UPDATE events SET timestamp = $start", r"clicks of returning users on items new to them"),
    "nobody": ("DELETE FROM events", r"users with clicks \(logs.click_types\): found 0, expected at least 3"),
}


def changed(directory: Path, change: str) -> Path:
    """Write a small host, changed."""
    write_small_host(directory, num_users=40, num_items=120)
    with duckdb.connect() as connection:
        for name in ("events", "items", "users"):
            connection.execute(f"CREATE TABLE {name} AS FROM '{directory / name}.parquet'")
            (directory / f"{name}.parquet").unlink()
        for statement in change.replace("$start", str(START)).split(";"):
            connection.execute(statement)
        for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f"COPY {name} TO '{directory / name}.parquet' (FORMAT parquet)")
    return directory


def built(root: Path, change: str, **given: object) -> Path:
    (root / "build.toml").write_text(SMALL)
    folder = changed(root / "host", change)
    config = load_build_config(root / "build.toml", {"dataset": str(folder), **given})
    result = build(
        config,
        root / "out",
        open_recall=pipeline.open_pipeline,
        recall_code=["serendipity.tools.pipeline"],
        publish=None,
        console=Console(file=io.StringIO()),
        clock=lambda: NOW,
    )
    return result.snapshot


@pytest.mark.parametrize("name", BUILT)
def test_an_odd_host_is_built_to_the_end(name: str, tmp_path: Path) -> None:
    given: dict[str, object] = {"logs": {"click_types": ["view"], "novelty_level": 1}} if "count" in name else {}
    if name not in WHOLE:
        given |= {"group_source": False, "interest_gpt": {"enabled": False}}
    snapshot = built(tmp_path, BUILT[name], **given)
    with pipeline.open_pipeline(snapshot, tmp_path / "out" / "towers" / "user_tower.onnx") as recall:
        assert recall is not None


@pytest.mark.parametrize("name", REFUSED)
def test_a_hopeless_host_is_refused_at_the_first_step(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    with pytest.raises(LogsError, match=message):
        built(tmp_path, change)
    assert not (tmp_path / "out" / "logs").exists()
