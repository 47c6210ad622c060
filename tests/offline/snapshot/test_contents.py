"""What a snapshot refuses of groups, their models and the novel-category lists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from serendipity import layout
from serendipity.keys import novel_category_key
from serendipity.offline.snapshot.contents import ContentsError, SnapshotContents, taxonomy_number
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import NOW, SmallWorld

MODEL = "0123456789abcdef"


def _with_groups(small_world: SmallWorld) -> SnapshotContents:
    """The small world's contents with two groups and a list for one of them."""
    contents = small_world.contents
    taxonomy_hash = contents.taxonomy_hash
    key = novel_category_key(MODEL, 1, contents.catalogue.categories[:1])
    return dataclasses.replace(
        contents,
        group_spec=records_pb2.GroupSpec(
            group_model_id=MODEL,
            sequence_length=8,
            click_threshold=1,
            counted="category",
            min_clicks=2,
            num_groups=1,
            codebook_size=4,
            num_quantizers=2,
        ),
        groups=[
            records_pb2.GroupRecord(group_id=0, profile="everyone", users=3),
            records_pb2.GroupRecord(group_id=1, profile="some", users=2, categories=[1]),
        ],
        coevolution=records_pb2.CoevolutionSpec(
            novelty_model_name=f"novelty_llm_{MODEL}",
            novelty_fingerprint=MODEL,
            relevance_model_name=f"relevance_llm_{MODEL}",
            relevance_fingerprint=MODEL,
            base="tiny",
            prompt_style="compact",
            group_model_id=MODEL,
            taxonomy_hash=taxonomy_hash,
            num_candidates=4,
            threshold=0.5,
            score_scale=1.0,
            max_batch=16,
            max_prompt_tokens=64,
        ),
        novel_categories={
            key: records_pb2.NovelCategoriesRecord(
                categories=[2, 1],
                scores=[0.75, 0.5],
                generated_at=NOW,
                group_model_id=MODEL,
                taxonomy_hash=taxonomy_number(taxonomy_hash),
            )
        },
    )


def _changed(contents: SnapshotContents, field: str, **values: Any) -> SnapshotContents:
    """Change fields of one of the contents' messages: the spec, the LLMs, the second group or the only list."""
    found: Any = getattr(contents, field)
    changed = type(found).FromString(found.SerializeToString())
    for name, value in values.items():
        setattr(changed, name, value)
    return dataclasses.replace(contents, **{field: changed})


def test_groups_and_lists_are_read_back(small_world: SmallWorld, tmp_path: Path) -> None:
    contents = _with_groups(small_world)
    directory = write_snapshot(contents, tmp_path, created_at=NOW)
    manifest = layout.verify_files(directory)
    assert (manifest.groups, manifest.coevolution) == (contents.group_spec, contents.coevolution)
    assert (directory / layout.GROUPS).is_dir()


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("group_spec", {"num_groups": 2}, "groups: found 2, expected 3"),
        ("coevolution", {"group_model_id": "f" * 16}, "coevolution.group_model_id"),
        ("coevolution", {"taxonomy_hash": "f" * 64}, "coevolution.taxonomy_hash"),
    ],
)
def test_what_does_not_fit_is_named(
    small_world: SmallWorld, tmp_path: Path, field: str, values: dict[str, Any], message: str
) -> None:
    contents = _changed(_with_groups(small_world), field, **values)
    with pytest.raises(ContentsError, match=re.escape(message)):
        write_snapshot(contents, tmp_path, created_at=NOW)


def test_groups_and_llms_need_the_group_model(small_world: SmallWorld, tmp_path: Path) -> None:
    contents = _with_groups(small_world)
    with pytest.raises(ContentsError, match="groups: found 2, expected 0"):
        write_snapshot(dataclasses.replace(contents, group_spec=None), tmp_path, created_at=NOW)
    with pytest.raises(ContentsError, match=r"coevolution\.group_model_id: found '0123456789abcdef', expected ''"):
        write_snapshot(dataclasses.replace(contents, group_spec=None, groups=()), tmp_path, created_at=NOW)
