"""Metrics are served, settings are checked."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
import structlog
from prometheus_client import generate_latest
from pydantic import ValidationError

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.query import parse_query
from serendipity.channel.service.readiness import model_answers
from serendipity.channel.service.settings import ServerSettings, split_address
from serendipity.channel.service.telemetry import Telemetry
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.channel.served import NO_TRITON, scrape
from tests.fixtures.small_world import DAY, NOW


def test_metrics_are_served_until_closed() -> None:
    telemetry = Telemetry()
    close = telemetry.serve("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{telemetry.metrics_port}/metrics") as response:
        assert scrape(response.read().decode(), "serendipity_requests_in_flight") == {"": 0.0}
    close()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", telemetry.metrics_port))


def test_a_port_that_is_taken_costs_the_metrics_and_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as lines:
        telemetry = Telemetry()
        close = telemetry.serve("127.0.0.1", taken.getsockname()[1])
    assert (telemetry.metrics_port, [line["event"] for line in lines]) == (0, ["metrics not served"])
    close()


def test_an_answer_is_counted_by_what_it_holds(local_channel: LocalChannel) -> None:
    request = pb.RecallRequest(user_id="nobody", count=400, deny_categories=["food-0", "no such category"])
    query = parse_query(request, NOW)
    answer = local_channel._loop.run_until_complete(local_channel.channel.recall(query, Deadline.after(60)))
    response = answer.response
    telemetry = Telemetry()
    for _ in range(2):
        telemetry.answered(answer)
    text = generate_latest(telemetry.registry).decode()
    assert scrape(text, "serendipity_answers_total")[""] == 2
    # There are not 400 items outside the denied category.
    assert scrape(text, "serendipity_short_answers_total")[""] == 2
    assert scrape(text, "serendipity_degraded_answers_total")[""] == 0
    assert scrape(text, "serendipity_novel_candidates_total")[""] == 2 * len(response.item_ids)
    candidates = scrape(text, "serendipity_candidates_total")
    states = scrape(text, "serendipity_source_states_total")
    fared = (("interest", "ok"), ("collaborative", "ok"), ("group", "empty"), ("graph", "empty"))
    for status, (name, state) in zip(response.source_statuses, fared, strict=True):
        assert candidates[f'{{source="{name}",step="found"}}'] == 2 * status.found
        assert candidates[f'{{source="{name}",step="returned"}}'] == 2 * status.returned
        assert states[f'{{source="{name}",state="{state}"}}'] == 2
    assert scrape(text, "serendipity_interests_total") == {'{freshness="fresh",origin="population"}': 2}
    assert scrape(text, "serendipity_interests_age_seconds_sum")[""] == 2 * DAY
    assert scrape(text, "serendipity_warnings_total") == {'{code="cold_user"}': 2, '{code="unknown_category"}': 2}
    assert scrape(text, "serendipity_novel_category_keys_total") == {}
    removed = scrape(text, "serendipity_removed_candidates_total")
    assert removed == {f'{{filter="{count.filter}"}}': 2 * count.removed for count in response.filter_counts}
    stages = scrape(text, "serendipity_stage_seconds_count")
    assert stages == {f'{{stage="{stage}"}}': 2 for stage in ("total", "hydrate", "user_tower", "sources", "rank")}
    seconds = response.timings.total.ToNanoseconds() / 1e9
    assert scrape(text, "serendipity_stage_seconds_sum")['{stage="total"}'] == pytest.approx(2 * seconds)
    # What is counted is what was found, whatever the caller is told of reasons.
    answer.for_caller()
    telemetry.answered(answer)
    assert scrape(generate_latest(telemetry.registry).decode(), "serendipity_answers_total")[""] == 3


def test_a_degraded_answer_is_counted_by_the_parts_that_were_down(local_channel: LocalChannel) -> None:
    query = parse_query(pb.RecallRequest(user_id="nobody", count=3), NOW)
    answer = local_channel._loop.run_until_complete(local_channel.channel.recall(query, Deadline.after(60)))
    answer.response.degraded = True
    answer.response.degraded_reasons.extend(["graph: one", "graph: another", "user tower: away: far"])
    telemetry = Telemetry()
    telemetry.answered(answer)
    text = generate_latest(telemetry.registry).decode()
    assert scrape(text, "serendipity_degraded_reasons_total") == {'{part="graph"}': 1, '{part="user tower"}': 1}


def test_what_a_worker_works_with_is_shown() -> None:
    telemetry = Telemetry()
    for name, is_open in (("feedback", True), ("erasures", False)):
        telemetry.watch_store(name, lambda is_open=is_open: is_open)
    telemetry.watch_tower(lambda: True)
    telemetry.tower_called("OK", 0.004)
    telemetry.tower_called("UNAVAILABLE", 1.0)
    telemetry.snapshot_served(pb.Versions(snapshot="v1"), 0.7)
    text = generate_latest(telemetry.registry).decode()
    assert scrape(text, "serendipity_store_open") == {'{store="feedback"}': 1, '{store="erasures"}': 0}
    assert scrape(text, "serendipity_user_tower_held_back") == {"": 1}
    calls = scrape(text, "serendipity_user_tower_call_seconds_sum")
    assert calls == {'{status="OK"}': 0.004, '{status="UNAVAILABLE"}': 1}
    assert scrape(text, "serendipity_snapshot_swap_seconds_sum") == {"": 0.7}
    # From 0 on, so that the first refusal is an increase.
    assert scrape(text, "serendipity_snapshot_swaps_total") == {'{outcome="opened"}': 1, '{outcome="refused"}': 0}


def test_a_shard_outside_the_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="shard: found 2, expected less than num_shards, which is 2"):
        ServerSettings(snapshots=tmp_path, state=tmp_path, shard=2, num_shards=2)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SERENDIPITY_WORKERS", "7")
    monkeypatch.setenv("SERENDIPITY_STATE", str(tmp_path))
    settings = ServerSettings(snapshots=tmp_path)  # type: ignore[call-arg]
    assert settings.workers == 7
    assert settings.feedback_path == tmp_path / "feedback"


@pytest.mark.parametrize(
    ("address", "found"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("host:65535", ("host", 65535))],
)
def test_addresses_are_split(address: str, found: tuple[str, int]) -> None:
    assert split_address(address) == found


@pytest.mark.parametrize("address", ["", "host", ":80", "host:port", "host:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        split_address(address)


def test_a_snapshot_whose_model_nobody_serves_is_not_published() -> None:
    manifest = records_pb2.Manifest(version="v1")
    manifest.tower.model_name = "user_tower_0"
    with pytest.raises(PublicationRefused, match=f"v1: user_tower_0 does not answer on Triton at {NO_TRITON}"):
        model_answers(NO_TRITON)(manifest, None)
