"""Records stand in one order each, whatever is done to them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.channel.state.environment import Environment
from serendipity.channel.state.records import OrderedRecords
from serendipity.v1 import records_pb2

ORDERS = ("even", "odd")
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "delete first", "spoil"]), st.integers(0, 4), st.integers(0, 9)),
    max_size=40,
)


def place_of(record: records_pb2.GroupRecord) -> tuple[str, int]:
    return ORDERS[record.group_id % 2], record.group_id


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_record_stands_once_in_its_order(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        env = Environment(Path(directory), 1 << 22, max_tables=3)
        table = OrderedRecords(env, "groups", records_pb2.GroupRecord, {o: o for o in ORDERS}, place_of)
        expected: dict[bytes, int] = {}
        for step, number, place in steps:
            key = b"%d" % number
            with env.writing() as txn:
                if step == "put":
                    table.put(txn, key, records_pb2.GroupRecord(group_id=place))
                    expected[key] = place
                elif step == "delete":
                    assert table.delete(txn, key) == (expected.pop(key, None) is not None)
                elif step == "spoil" and key in expected:
                    txn.put(key, b"\xff", db=table.table)
                    assert table.get_readable(txn, key) is None
                    assert table.delete(txn, key)
                    del expected[key]
                elif step == "delete first" and (first := table.keys(txn, ORDERS[place % 2], 1)):
                    assert table.delete_first(txn, ORDERS[place % 2])
                    del expected[first[0]]
        with env.reading() as txn:
            for remainder, order in enumerate(ORDERS):
                inside = {key: place for key, place in expected.items() if place % 2 == remainder}
                keys = table.keys(txn, order, 99)
                assert sorted(keys) == sorted(inside)
                assert [inside[key] for key in keys] == sorted(inside.values())
                assert table.size(txn, order) == len(inside)
                early = table.keys(txn, order, 99, until=4)
                assert [inside[key] for key in early] == sorted(place for place in inside.values() if place <= 4)
                last = table.last_key(txn, order)
                assert (None if last is None else inside[last]) == max(inside.values(), default=None)
            assert dict(table.rows_from(txn)).keys() == expected.keys()
            assert table.keys_after(txn, b"", 99) == sorted(expected)
        env.close()
