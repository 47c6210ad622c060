"""A real Prometheus, where it is installed (Debian's prometheus): it scrapes a service, and an alert fires."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serendipity.channel.service.worker_status import read_statuses
from serendipity.tools.service import launch_service
from tests.channel.served import NO_TRITON, copy_snapshot, publish
from tests.deploy.queries import DEPLOY, queries
from tests.fixtures.small_world import SmallWorld

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]


def asked(address: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"http://{address}/api/v1/{path}?{query}") as answer:
        return json.load(answer)["data"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextlib.contextmanager
def prometheus(directory: Path, targets: list[str]) -> Iterator[str]:
    """Run it with the alerts on some targets, looking often; yields its address."""
    scrape = {"job_name": "serendipity", "static_configs": [{"targets": targets}]}
    often = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    rules = [str(DEPLOY / "prometheus" / "alerts.yml")]
    configuration = {"global": often, "rule_files": rules, "scrape_configs": [scrape]}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'metrics'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(asked(address, "status/buildinfo"))
        return False

    try:
        until(answers)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_a_worker_that_is_killed_fires_an_alert_and_every_query_is_answered(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    publish(tmp_path, copy_snapshot(small_world, tmp_path / "snapshots", "first").name)
    with launch_service(tmp_path, NO_TRITON, options={"clock": "snapshot"}) as service:
        state = tmp_path / "state"
        (worker,) = read_statuses(state / "workers")
        supervisor = json.loads((state / "endpoints.json").read_text())["metrics_port"]
        targets = [f"127.0.0.1:{port}" for port in (worker.metrics_port, supervisor)]
        with prometheus(tmp_path, targets) as address:
            until(lambda: len(asked(address, "query", query="serendipity_process_restarts_total")["result"]) == 6)
            os.kill(worker.pid, signal.SIGKILL)

            def firing() -> set[str]:
                alerts = asked(address, "alerts")["alerts"]
                return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

            until(lambda: "SerendipityRestarts" in firing())
            for _, query in queries():
                # A query that it cannot read it answers by 400.
                asked(address, "query", query=query)
            served = asked(address, "query", query="count by (version) (serendipity_snapshot_info)")["result"]
            assert [one["metric"]["version"] for one in served] in ([], ["first"])
        assert service.stop() == 0
