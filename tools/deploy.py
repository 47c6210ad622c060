"""Place a snapshot's models on Triton, load and check them, then publish the snapshot that pins them.

    serendip deploy --build var/complete-journey --triton 127.0.0.1:8001 [VERSION]

A failure at any step leaves the snapshot that is published now, and the model it pins, as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import grpc
import tritonclient.grpc as triton_grpc

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.nearline.triton_models import tensor
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.trial_opening import can_be_opened
from serendipity.tools import pinned_models, placement
from serendipity.tools.pinned_models import PinnedModel, ServingPlan
from serendipity.v1 import admin_pb2, admin_pb2_grpc


class DeployError(Exception):
    """A model on Triton is not what the snapshot pins: names the model, what was found and what was expected."""


def deploy(
    snapshot_dir: Path,
    models_dir: Path,
    url: str,
    publish: Callable[[str], None],
    *,
    build_dir: Path | None = None,
    plan: ServingPlan = pinned_models.AS_SERVED_HERE,
    timeout: float = 120.0,
) -> str:
    """Place, load, check and publish; return the snapshot's version.

    snapshot_dir: snapshots/<version>. models_dir: Triton's model repository, as this machine sees it. url: Triton's
    gRPC host:port. publish: makes a version the wanted one; called only when the models it pins answer.
    build_dir: holds the trainings of the models that the snapshot pins; None where they are in the repository
    already. plan: how Triton runs them. timeout: seconds per call to Triton.

    Raises SnapshotError, PlacementError, DeployError, or what `publish` raises.
    """
    manifest = layout.read_manifest(snapshot_dir)
    if build_dir is not None:
        pinned_models.place_pinned(manifest, build_dir, models_dir, plan)
    for model in pinned_models.pinned_models(manifest):
        load(url, model, timeout)
    publish(manifest.version)
    return manifest.version


def load(url: str, model: PinnedModel, timeout: float = 120.0) -> None:
    """Load a model, and see that it is the one that is pinned and answers.

    Loads it (EXPLICIT model control), an engine behind it first, waits until it is ready, compares the parameters it
    reports, and asks it one question, which also warms it up. Raises DeployError.
    """
    name, where = model.name, f"{model.name} on Triton at {url}"
    client = triton_grpc.InferenceServerClient(url)
    try:
        engine = name + placement.ENGINE_SUFFIX
        if engine in {entry.name for entry in client.get_model_repository_index(client_timeout=timeout).models}:
            client.load_model(engine, client_timeout=timeout)
        client.load_model(name, client_timeout=timeout)
        if not client.is_model_ready(name, client_timeout=timeout):
            raise DeployError(f"{name}: not ready on Triton at {url} after it was loaded")
        parameters = client.get_model_config(name, client_timeout=timeout).config.parameters
        for field, expected in model.reported.items():
            found = parameters[field].string_value if field in parameters else "none"
            if found != expected:
                raise DeployError(f"{where}: {field}: found {found}, expected {expected}")
        question = [tensor(key, values) for key, values in model.question.items()]
        result = client.infer(name, question, client_timeout=timeout)
    except triton_grpc.InferenceServerException as error:
        raise DeployError(f"{name}: Triton at {url} refused it: {error.message()}") from error
    finally:
        client.close()
    answers = {output: result.as_numpy(output) for output in model.outputs}
    for output, values in answers.items():
        if values is None:
            raise DeployError(f"{where}: {output}: found no output")
    try:
        model.check(answers)
    except (pinned_models.AnswerError, ValueError) as error:
        raise DeployError(f"{where}: {error}") from error


def load_text_encoder(url: str, timeout: float = 120.0) -> None:
    """Load the text encoder and see that it is ready. Raises DeployError."""
    client = triton_grpc.InferenceServerClient(url)
    try:
        client.load_model(placement.TEXT_ENCODER, client_timeout=timeout)
        if not client.is_model_ready(placement.TEXT_ENCODER, client_timeout=timeout):
            raise DeployError(f"{placement.TEXT_ENCODER}: not ready on Triton at {url} after it was loaded")
    except triton_grpc.InferenceServerException as error:
        raise DeployError(f"{placement.TEXT_ENCODER}: Triton at {url} refused it: {error.message()}") from error
    finally:
        client.close()


def retained_models(snapshots_root: Path) -> set[str]:
    """Names of the models that the retained snapshots pin.

    Raises SnapshotError when a manifest cannot be read: then nobody knows what it pins.
    """
    snapshots = (path for path in snapshots_root.iterdir() if path.is_dir() and not path.name.startswith("."))
    manifests = [layout.read_manifest(path) for path in snapshots]
    return {model.name for manifest in manifests for model in pinned_models.pinned_models(manifest)}


def unload_unused(url: str, pinned: Collection[str], timeout: float = 120.0) -> list[str]:
    """Unload the models that a snapshot can pin and no retained one does, and return their names.

    Raises DeployError.
    """
    client = triton_grpc.InferenceServerClient(url)
    try:
        index = client.get_model_repository_index(client_timeout=timeout).models
        loaded = {model.name for model in index if model.state == "READY"}
        unused = sorted(
            name
            for name in loaded
            if name.startswith(pinned_models.PREFIXES) and name.removesuffix(placement.ENGINE_SUFFIX) not in pinned
        )
        for name in unused:
            client.unload_model(name, client_timeout=timeout)
    except triton_grpc.InferenceServerException as error:
        raise DeployError(f"Triton at {url}: {error.message()}") from error
    finally:
        client.close()
    return unused


def publish_over(address: str, timeout: float = 60.0) -> Callable[[str], None]:
    """Give a function that publishes a version through the admin service at `address` (host:port)."""

    def publish(version: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = admin_pb2_grpc.SerendipityAdminStub(channel)  # type: ignore[no-untyped-call]
            try:
                stub.PublishSnapshot(admin_pb2.PublishSnapshotRequest(version=version), timeout=timeout)
            except grpc.RpcError as error:
                raise DeployError(f"{version}: the admin service at {address} refused it: {error.details()}") from error

    return publish


def publish_on_disk(snapshots: Path, gate: bool = True) -> Callable[[str], None]:
    """Give a function that publishes a version below `snapshots`; services that read them there follow."""

    def publish(version: str) -> None:
        gates = []
        if gate:
            from serendipity.tools.quality_gate import quality_gate

            gates.append(quality_gate())
        Publications(snapshots, checks=[can_be_opened(snapshots)], gates=gates).publish(version)

    return publish


def newest(snapshots: Path) -> str:
    """Version of the newest snapshot on disk. Raises DeployError when there is none."""
    for listed in Publications(snapshots).listed():
        if listed.manifest is not None:
            return listed.version
    raise DeployError(f"{snapshots}: holds no snapshot; build one with `serendip build`")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip deploy`."""
    parser.add_argument("version", nargs="?", help="snapshot to publish (default: the newest on disk)")
    parser.add_argument(
        "--build", type=Path, required=True, metavar="DIR", help="build directory: snapshots/ and trainings"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="Triton's repository (default: models/ of the build)"
    )
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="also place and load this text encoder")
    parser.add_argument("--backend", choices=placement.BACKENDS, default="python", help="Triton backend of the tower")
    parser.add_argument(
        "--instances", type=int, metavar="N", help="instances of tower and encoders (default: as checked in)"
    )
    parser.add_argument("--gpu", action="store_true", help="run all models on Triton's GPUs, N on each")
    parser.add_argument(
        "--interest-gpt-threads", type=int, metavar="N", help="threads of InterestGPT on CPUs (default: as checked in)"
    )
    parser.add_argument(
        "--coevolution-threads", type=int, metavar="N", help="threads of Novelty and Relevance LLM each, likewise"
    )
    parser.add_argument(
        "--interest-gpt-backend", choices=placement.INTEREST_GPT_BACKENDS, default="python", help="what runs it"
    )
    parser.add_argument(
        "--models-in-triton", type=Path, metavar="DIR", help="with vllm: --models as Triton sees it (default: as here)"
    )
    parser.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="with vllm: GPUs it is spread over")
    parser.add_argument("--triton", default="127.0.0.1:8001", metavar="HOST:PORT", help="Triton's gRPC address")
    parser.add_argument(
        "--admin", metavar="HOST:PORT", help="publish over this admin service, not on this machine's disk"
    )
    parser.add_argument("--no-gate", action="store_true", help="publish on disk without the quality gate")
    parser.add_argument("--unload-unused", action="store_true", help="then unload models no retained snapshot pins")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="per call to Triton")


def run(args: argparse.Namespace) -> int:
    """Deploy, saying what is done; returns 1 when a step fails."""
    snapshots, models = args.build / "snapshots", args.models or args.build / "models"
    try:
        instances = placement.Instances(args.instances, args.gpu)
        version = args.version or newest(snapshots)
        if args.text_encoder:
            print(f"placed {placement.place_text_encoder(args.text_encoder, models, instances)}")
            load_text_encoder(args.triton, args.timeout)
        deploy(
            snapshots / version,
            models,
            args.triton,
            publish_over(args.admin) if args.admin else publish_on_disk(snapshots, gate=not args.no_gate),
            build_dir=args.build,
            plan=_plan(args, instances),
            timeout=args.timeout,
        )
    except (DeployError, placement.PlacementError, layout.SnapshotError, PublicationRefused) as error:
        print(f"serendip deploy: {error}\nWhat was published before stays.", file=sys.stderr)
        return 1
    print(f"published {version}")
    if args.unload_unused:
        try:
            for name in unload_unused(args.triton, retained_models(snapshots), args.timeout):
                print(f"unloaded {name}")
        except (DeployError, layout.SnapshotError) as error:
            print(f"serendip deploy: {version} is published, but unused models stay loaded: {error}", file=sys.stderr)
            return 1
    return 0


def _plan(args: argparse.Namespace, instances: placement.Instances) -> ServingPlan:
    engine = placement.VllmEngine(args.models_in_triton, args.tensor_parallel)
    return ServingPlan(
        args.backend,
        instances,
        placement.Serving(args.interest_gpt_backend, args.gpu, args.interest_gpt_threads, engine),
        placement.LanguageModelServing(args.gpu, args.coevolution_threads),
    )
