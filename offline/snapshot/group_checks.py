"""The checks that groups, their models and the novel-category lists have to pass."""

from __future__ import annotations

from serendipity.groups.lists import LIST_LENGTH
from serendipity.groups.prompt import MAX_PROFILE_CHARS
from serendipity.offline.snapshot.contents import SnapshotContents, require, taxonomy_number
from serendipity.v1 import records_pb2


def check_groups(contents: SnapshotContents) -> None:
    """Check that groups and LLMs are of the same model and catalogue; lists are checked as they are written.

    What a spec says of its own model is checked where that is placed. Raises ContentsError naming the field.
    """
    spec, coevolution = contents.group_spec, contents.coevolution
    if spec is None:
        require(not contents.groups, "groups", f"{len(contents.groups)} groups", "none without a group model")
        require(coevolution is None, "coevolution", "LLMs", "none without a group model")
    else:
        found = spec.group_model_id
        require(found == spec.fingerprint, "group_spec.group_model_id", repr(found), f"{spec.fingerprint!r}")
        _check_records(contents, spec)
    if coevolution is None:
        lists = len(contents.novel_categories)
        require(not lists, "novel_categories", f"{lists} lists", "none without the LLMs that wrote them")
    elif spec is not None:
        _check_coevolution(coevolution, spec, contents.taxonomy_hash)


def check_novel_categories(name: str, record: records_pb2.NovelCategoriesRecord, contents: SnapshotContents) -> None:
    """Check one list against the catalogue, the group model and the LLMs.

    Raises ContentsError naming the list and the field.
    """
    assert contents.coevolution is not None
    numbers, scores = list(record.categories), list(record.scores)
    bound = len(contents.catalogue.categories)
    require(len(numbers) == len(scores), f"{name}.scores", f"{len(scores)} scores", f"{len(numbers)}, one per category")
    require(len(numbers) <= LIST_LENGTH, f"{name}.categories", f"{len(numbers)} categories", f"at most {LIST_LENGTH}")
    valid = len(set(numbers)) == len(numbers) and all(0 < number <= bound for number in numbers)
    require(valid, f"{name}.categories", numbers, f"distinct category numbers, 1 to {bound}")
    # Not a number compares false.
    ordered = all(0 <= score <= 1 for score in scores) and scores == sorted(scores, reverse=True)
    require(ordered, f"{name}.scores", scores, "alignments within 0 … 1, best first")
    model = contents.coevolution.group_model_id
    require(record.group_model_id == model, f"{name}.group_model_id", repr(record.group_model_id), repr(model))
    expected = taxonomy_number(contents.taxonomy_hash)
    require(
        record.taxonomy_hash == expected, f"{name}.taxonomy_hash", f"{record.taxonomy_hash:016x}", f"{expected:016x}"
    )


def _check_records(contents: SnapshotContents, spec: records_pb2.GroupSpec) -> None:
    ids = [group.group_id for group in contents.groups]
    require(ids == list(range(spec.num_groups + 1)), "groups", f"ids {ids[:10]} …", f"0 to {spec.num_groups} in order")
    bound = len(contents.catalogue.categories)
    for group in contents.groups:
        name = f"groups[{group.group_id}]"
        length = len(group.profile)
        require(0 < length <= MAX_PROFILE_CHARS, f"{name}.profile", f"{length} characters", f"1 to {MAX_PROFILE_CHARS}")
        numbers = list(group.categories)
        require(all(0 < number <= bound for number in numbers), f"{name}.categories", numbers, f"numbers, 1 to {bound}")


def _check_coevolution(
    coevolution: records_pb2.CoevolutionSpec, spec: records_pb2.GroupSpec, taxonomy_hash: str
) -> None:
    name, found = "coevolution", coevolution.group_model_id
    # Lists by the profiles of other groups would be found under no key.
    require(found == spec.group_model_id, f"{name}.group_model_id", repr(found), repr(spec.group_model_id))
    found = coevolution.taxonomy_hash
    require(found == taxonomy_hash, f"{name}.taxonomy_hash", found, taxonomy_hash)
    require(0 <= coevolution.threshold <= 1, f"{name}.threshold", coevolution.threshold, "an alignment, 0 … 1")
