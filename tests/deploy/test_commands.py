"""What deployments run is the command as it is: its options, its settings, and the formats they are written in."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.offline import encoder
from serendipity.tools.cli import COMMANDS, CommandParser
from serendipity.tools.options import read_settings
from tests.deploy.queries import DEPLOY

KUBERNETES = "1.33"
"""Version of the schemas that manifests are held against: the first with all that they use switched on."""
PLACES = r"(?<!\w)/(build|var/lib/serendipity)\b"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifests, each with the name of its file."""
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield str(path.relative_to(DEPLOY)), document


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The specifications of the manifests' pods."""
    for name, document in documents():
        template = document.get("spec", {}).get("jobTemplate", document).get("spec", {}).get("template")
        if template:
            yield f"{name} {document['metadata']['name']}", template["spec"]


def literals() -> dict[str, str]:
    """What the generated ConfigMap holds."""
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "kustomization.yaml").read_text())
    return dict(one.split("=", 1) for one in kustomization["configMapGenerator"][0]["literals"])


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text()
    return dict(yaml.safe_load(text))


def environment() -> dict[str, str]:
    """What the units' file of settings holds."""
    lines = (DEPLOY / "systemd" / "serendipity.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(words: Sequence[str], variable: str, given: Mapping[str, str]) -> list[str]:
    """Put values in the place of variables. variable: pattern of one, its name in the first group."""
    return [re.sub(variable, lambda found: given[found[1]], word) for word in words]


def commands() -> Iterator[tuple[str, list[str], Mapping[str, str]]]:
    """Every `serendip` command: where it stands, its words, and the variables that it finds."""
    for name, service in compose()["services"].items():
        if "target" in service.get("build", {}):
            yield f"compose {name}", service["command"], {}
    for name, pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            if container["image"] in ("serendipity-service", "serendipity-builders"):
                given = literals() if "envFrom" in container else {}
                yield f"{name} {container['name']}", filled(container["args"], r"\$\((\w+)\)", given), given
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        for line in re.findall(r"^ExecStart=/opt/serendipity/bin/serendip (.+)$", path.read_text(), re.MULTILINE):
            yield path.name, filled(shlex.split(line), r"\$\{(\w+)\}", environment()), environment()


@pytest.mark.parametrize(
    ("where", "words", "given"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_command_has_the_options_that_it_is_given(
    where: str, words: list[str], given: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("build", "var/lib/serendipity/build"):
        (tmp_path / place).mkdir(parents=True)
    command, *rest = [re.sub(PLACES, rf"{tmp_path}/\1", word) for word in words]
    module = importlib.import_module(f"serendipity.tools.{COMMANDS[command].module}")
    parser = CommandParser(prog=where)
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if command == "serve":
        for name, value in given.items():
            monkeypatch.setenv(name, re.sub(PLACES, rf"{tmp_path}/\1", value))
        read_settings(ServerSettings, args, **({"snapshots": args.build, "state": args.build} if args.build else {}))
        read_settings(ChannelSettings, args)


@pytest.mark.parametrize("given", [literals(), environment()], ids=["kubernetes", "systemd"])
def test_a_variable_is_a_setting(given: Mapping[str, str]) -> None:
    known = {f"SERENDIPITY_{name.upper()}" for name in (*ServerSettings.model_fields, *ChannelSettings.model_fields)}
    assert {name for name in given if name.startswith("SERENDIPITY_")} - known == set()


@pytest.mark.parametrize(
    "manifest", list(documents()), ids=lambda one: f"{one[0]} {one[1]['kind']} {one[1]['metadata']['name']}"
)
def test_kubernetes_takes_a_manifest(manifest: tuple[str, dict[str, Any]]) -> None:
    kubernetes_validate.validate(manifest[1], KUBERNETES, strict=True)


def test_a_pod_has_its_probes_its_bounds_and_no_rights_that_it_does_not_need() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        names = {volume["name"] for volume in pod["volumes"]} | {"state"}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= names, name
            if "ports" in container:
                assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= container.keys(), name


def test_a_service_and_a_budget_select_pods_that_are_there() -> None:
    manifests = [document for _, document in documents()]
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in manifests if "template" in d.get("spec", {})]
    chosen = [d["spec"]["selector"] for d in manifests if d["kind"] == "Service"]
    chosen += [d["spec"]["selector"]["matchLabels"] for d in manifests if d["kind"] == "PodDisruptionBudget"]
    chosen += [d["spec"]["podSelector"]["matchLabels"] for d in manifests if d["kind"] == "NetworkPolicy"]
    assert chosen
    assert all(any(one.items() <= of_pod.items() for of_pod in labels) for one in chosen)


def test_there_is_a_pod_for_each_shard_and_a_port_for_each_process() -> None:
    given = literals()
    sets = {d["metadata"]["name"]: d["spec"] for _, d in documents() if d["kind"] == "StatefulSet"}
    assert sets["channel"]["replicas"] == int(given["SERENDIPITY_NUM_SHARDS"])
    ports = {port["containerPort"] for port in sets["channel"]["template"]["spec"]["containers"][0]["ports"]}
    # Workers, near-line process, supervisor; the channel, and the health of workers and supervisor.
    assert ports == {9464 + n for n in range(int(given["SERENDIPITY_WORKERS"]) + 2)} | {50051, 50053, 50054}
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert len(scraped["static_configs"][0]["targets"]) == 2 + 2
    assert "--workers=2" in compose()["services"]["channel"]["command"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("variant", ["base", "elastic"])
def test_kustomize_puts_the_manifests_together(variant: str) -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes" / variant)], capture_output=True, text=True, check=True
    )
    for document in yaml.safe_load_all(made.stdout):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_compose_takes_the_file() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    # The parser reads files after their variables have been filled in.
    spec = PyCompose.from_yaml(re.sub(r"\$\{BUILD:\?[^}]+\}", "/build", text)).to_spec()
    assert set(spec.services) == {"triton", "channel", "deploy", "prometheus", "grafana"}


def test_what_compose_mounts_and_builds_from_is_there() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert (DEPLOY / volume.split(":")[0]).exists(), volume
        if "build" in service:
            recipe = (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).read_text()
            assert "target" not in service["build"] or f" AS {service['build']['target']}\n" in recipe


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").glob("*.[st]*[er]")), ids=lambda path: path.name)
def test_systemd_takes_a_unit(path: Path, tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").iterdir():
        # It looks for the program, and for the user.
        text = (
            unit.read_text().replace("/opt/serendipity/bin/serendip", sys.executable).replace("User=serendipity\n", "")
        )
        (tmp_path / unit.name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in verified.stderr.splitlines() if path.stem in line]
    assert (verified.returncode, said) == (0, [])


@pytest.mark.parametrize("path", sorted((DEPLOY / "containers").iterdir()), ids=lambda path: path.name)
def test_an_image_installs_extras_that_there_are_and_copies_what_is_there(path: Path) -> None:
    text = path.read_text()
    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for listed in re.findall(r"\.whl\)\[([\w,]+)\]", text) for name in listed.split(",")} <= extras.keys()
    stages = set(re.findall(r" AS (\w+)$", text, re.MULTILINE))
    for source, files in re.findall(r"^COPY (?:--from=(\w+) )?(.+) \S+$", text, re.MULTILINE):
        assert source in stages if source else (DEPLOY.parent / files).exists(), files


def test_builders_have_the_text_encoder_that_a_build_takes_by_default() -> None:
    assert (
        f"--no-deps {encoder._DEFAULT_REQUIREMENT}\n"
        in (DEPLOY / "containers" / "serendipity.Containerfile").read_text()
    )


def test_triton_is_of_a_release_that_bears_calls_that_are_cancelled() -> None:
    text = (DEPLOY / "containers" / "triton.Containerfile").read_text()
    (year, month) = re.findall(r"^FROM nvcr.io/nvidia/tritonserver:(\d+)\.(\d+)-py3$", text, re.MULTILINE)[0]
    assert (int(year), int(month)) >= (25, 6)
