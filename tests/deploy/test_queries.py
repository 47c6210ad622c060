"""Rules and dashboard ask for what a running service shows, and every alert has its section in the runbook."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.telemetry import NearlineTelemetry
from serendipity.channel.service.process_telemetry import SupervisorTelemetry
from serendipity.channel.service.telemetry import Telemetry
from serendipity.channel.service.worker_status import read_statuses
from serendipity.tools.service import Service, launch_service
from tests.channel.served import NO_TRITON, copy_snapshot, publish
from tests.deploy.queries import DEPLOY, OF_PROMETHEUS, dashboards, labels_of, metrics_of, queries, rules
from tests.fixtures.small_world import SmallWorld

DOCS = DEPLOY.parent / "docs"
PANELS = {"row", "stat", "table", "timeseries"}


def shown(port: int) -> str:
    """What a process shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return str(response.read().decode())


@pytest.fixture(scope="module")
def running(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A service of one worker without Triton, and its state."""
    build = tmp_path_factory.mktemp("build")
    publish(build, copy_snapshot(small_world, build / "snapshots", "first").name)
    with launch_service(build, NO_TRITON, options={"clock": "snapshot"}) as service:
        yield service, build / "state"


def supervisor_port(state: Path) -> int:
    return int(json.loads((state / "endpoints.json").read_text())["metrics_port"])


@pytest.mark.integration
def test_every_metric_that_is_asked_for_is_shown_by_a_running_service(running: tuple[Service, Path]) -> None:
    service, state = running
    (near_line,) = re.findall(r'"metrics_port": (\d+).*"near-line process runs"', service.log_path.read_text())
    workers = [status.metrics_port for status in read_statuses(state / "workers")]
    text = "".join(map(shown, (*workers, int(near_line), supervisor_port(state))))
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    names |= {f"{name}_{suffix}" for name in names for suffix in ("bucket", "sum", "count")}
    asked = {name for _, query in queries() for name in metrics_of(query)} - {"up"}
    assert asked - names == set()
    assert 'serendipity_process_up{process="worker-0"} 1.0' in text


@pytest.mark.integration
def test_a_worker_that_was_killed_is_a_restart_that_the_supervisor_shows(running: tuple[Service, Path]) -> None:
    _, state = running
    (worker,) = read_statuses(state / "workers")
    os.kill(worker.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while 'serendipity_process_restarts_total{cause="died",process="worker-0"} 1.0' not in shown(
        supervisor_port(state)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_selected_and_grouped_by_are_labels_of_the_metric(nearline_store: NearlineStore) -> None:
    registries = [each.registry for each in (Telemetry(), SupervisorTelemetry(), NearlineTelemetry(nearline_store))]
    known = labels_of(*registries)
    unknown = {
        (who, name): wrong
        for who, query in queries()
        for name, labels in metrics_of(query).items()
        if name != "up" and (wrong := labels - known[name] - OF_PROMETHEUS)
    }
    assert unknown == {}


def test_the_operations_page_lists_every_metric_with_its_labels(nearline_store: NearlineStore) -> None:
    tables = "".join((DOCS / page).read_text() for page in ("operations.md", "nearline.md"))
    telemetries = (Telemetry(), SupervisorTelemetry(), NearlineTelemetry(nearline_store))
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for each in telemetries
        for family in each.registry.collect()
        if family.name.startswith("serendipity_")
    }
    assert {name for name in names if f"`{name}`" not in tables} == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_severe_it_is_what_happened_and_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert f"\n### {rule['alert']}\n" in (DOCS / "runbook.md").read_text()


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^### (\S+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_has_panels_of_known_kinds_that_do_not_lie_on_each_other(name: str) -> None:
    dashboard = dashboards()[name]
    panels = dashboard["panels"]
    assert {panel["type"] for panel in panels} <= PANELS
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    sources = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} == {
        f"${{{one}}}" for one in sources
    }


def test_both_scrape_configurations_know_the_jobs_that_alerts_ask_for() -> None:
    for name in ("prometheus.yml", "kubernetes.yml"):
        jobs = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["scrape_configs"]
        asked = {job for rule in rules() for job in re.findall(r'job="(\w+)"', rule["expr"])}
        assert {job["job_name"] for job in jobs} == asked


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", str(Path(__file__).with_name("alerts_test.yml"))),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_prometheus_takes_rules_and_configuration_and_alerts_fire_when_they_should(arguments: tuple[str, ...]) -> None:
    checked = subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
