"""A store that cannot be opened takes nothing else down, and serves once it can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from serendipity.channel.client.errors import Unavailable
from serendipity.channel.client.messages import Feedback
from serendipity.channel.errors import StateUnavailable
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.reopening import Reopening
from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings, service
from tests.fixtures.serving_log import read_serving_log
from tests.fixtures.small_world import SmallWorld


def test_a_store_is_tried_again_after_a_while_and_kept_once_open(tmp_path: Path) -> None:
    path = tmp_path / "erasures"
    path.write_text("in the way")
    now = [0.0]
    reopening = Reopening("erasures", lambda: ErasureList(path), retry_seconds=30.0, clock=lambda: now[0])
    with pytest.raises(StateUnavailable, match=r"^erasures: cannot be opened; the logs say why$"):
        reopening.store()
    path.unlink()
    now[0] = 29.0
    with pytest.raises(StateUnavailable):
        reopening.store()
    now[0] = 30.0
    store = reopening.store()
    assert reopening.store() is store
    store.add("anna")
    reopening.close()
    reopening.close()
    with pytest.raises(StateUnavailable):
        reopening.store()


@pytest.fixture
def directory(small_world: SmallWorld, tmp_path: Path) -> Path:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.mark.parametrize("broken", ["feedback", "nearline"])
async def test_recall_answers_without_a_store_that_cannot_be_opened(
    directory: Path, small_world: SmallWorld, broken: str
) -> None:
    (directory / "state" / broken).write_text("in the way")
    user_id = small_world.user_ids[0]
    async with service(server_settings(directory), channel_settings()) as (client, _):
        answer = await client.recall(user_id, count=10)
        assert len(answer.candidates) == 10
        assert any(f"{broken}: cannot be opened; the logs say why" in reason for reason in answer.degraded_reasons)
        assert not any(str(directory) in reason for reason in answer.degraded_reasons)
        event = Feedback(user_id, "item-001")
        if broken == "feedback":
            with pytest.raises(Unavailable, match="feedback: cannot be opened"):
                await client.record_feedback([event])
        else:
            assert (await client.record_feedback([event])).accepted == 1


async def test_without_the_erasure_list_everybody_is_a_stranger_and_nothing_is_recorded(
    directory: Path, small_world: SmallWorld
) -> None:
    (directory / "state" / "erasures").write_text("in the way")
    async with service(server_settings(directory), channel_settings()) as (client, _):
        answer = await client.recall(small_world.user_ids[0], count=10)
        stranger = await client.recall("nobody", count=10)
        assert [c.item_id for c in answer.candidates] == [c.item_id for c in stranger.candidates]
        assert any(reason.startswith("erasures: ") for reason in answer.degraded_reasons)
        with pytest.raises(Unavailable, match="erasures: cannot be opened"):
            await client.record_feedback([Feedback(small_world.user_ids[0], "item-001")])
    assert {record.user_id for record in read_serving_log(directory / "state" / "serving_log")} == {""}
