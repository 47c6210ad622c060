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
import numpy as np
import tritonclient.grpc as triton_grpc

from serendipity import features, layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.publication import Publications
from serendipity.channel.trial_opening import can_be_opened
from serendipity.interests import answer, model, prompt
from serendipity.tools import placement
from serendipity.v1 import admin_pb2, admin_pb2_grpc, records_pb2

_PINNABLE = (features.TOWER_MODEL_PREFIX, model.MODEL_PREFIX)
"""How the names of models begin that a snapshot can pin."""


class DeployError(Exception):
    """A model on Triton is not what the snapshot pins: names the model, what was found and what was expected."""


def deploy(
    snapshot_dir: Path,
    models_dir: Path,
    url: str,
    publish: Callable[[str], None],
    *,
    towers_dir: Path | None = None,
    interest_gpt_dir: Path | None = None,
    backend: placement.Backend = "python",
    instances: placement.Instances = placement.AS_CHECKED_IN,
    interest_gpt: placement.Serving = placement.AS_SERVED_HERE,
    timeout: float = 120.0,
) -> str:
    """Place, load, check and publish; return the snapshot's version.

    snapshot_dir: snapshots/<version>. models_dir: Triton's model repository, as this machine sees it. url: Triton's
    gRPC host:port. publish: makes a version the wanted one; called only when the models it pins answer.
    towers_dir: the training of the tower; interest_gpt_dir: that of InterestGPT, looked at where the snapshot pins
    one; None where the model is in the repository already. backend, instances and interest_gpt: how Triton runs them.
    timeout: seconds per call to Triton.

    Raises SnapshotError, PlacementError, DeployError, or what `publish` raises.
    """
    manifest = layout.read_manifest(snapshot_dir)
    spec = manifest.tower
    if towers_dir is not None:
        trained = placement.read_spec(towers_dir)
        if trained.fingerprint != spec.fingerprint:
            raise DeployError(
                f"{towers_dir}: fingerprint: found {trained.fingerprint}, "
                f"expected {spec.fingerprint}, which {snapshot_dir / layout.MANIFEST} pins"
            )
        placement.place_user_tower(towers_dir, models_dir, backend, instances)
    if manifest.HasField("interest_gpt") and interest_gpt_dir is not None:
        tuned = placement.read_interest_gpt_spec(interest_gpt_dir)
        if tuned.fingerprint != manifest.interest_gpt.fingerprint:
            raise DeployError(
                f"{interest_gpt_dir}: fingerprint: found {tuned.fingerprint}, expected "
                f"{manifest.interest_gpt.fingerprint}, which {snapshot_dir / layout.MANIFEST} pins"
            )
        placement.place_interest_gpt(interest_gpt_dir, models_dir, interest_gpt)
    load_and_check(url, spec, manifest.vector_index.dim, timeout)
    if manifest.HasField("interest_gpt"):
        load_interest_gpt(url, manifest.interest_gpt, timeout)
    publish(manifest.version)
    return manifest.version


def load_and_check(url: str, spec: records_pb2.TowerSpec, dim: int, timeout: float = 120.0) -> None:
    """Load the tower that `spec` names, and see that it is the one and answers.

    Loads it (EXPLICIT model control), waits until it is ready, compares the fingerprint its configuration reports,
    and sends one user of zeros: the answer must be [1, 1 + K, dim] finite float32. Raises DeployError.
    """
    name = spec.model_name
    client = triton_grpc.InferenceServerClient(url)
    try:
        client.load_model(name, client_timeout=timeout)
        if not client.is_model_ready(name, client_timeout=timeout):
            raise DeployError(f"{name}: not ready on Triton at {url} after it was loaded")
        parameters = client.get_model_config(name, client_timeout=timeout).config.parameters
        found = parameters["fingerprint"].string_value if "fingerprint" in parameters else "none"
        if found != spec.fingerprint:
            raise DeployError(f"{name} on Triton at {url}: fingerprint: found {found}, expected {spec.fingerprint}")
        answer = client.infer(name, _zero_inputs(spec), client_timeout=timeout).as_numpy(features.OUTPUT_NAME)
    except triton_grpc.InferenceServerException as error:
        raise DeployError(f"{name}: Triton at {url} refused it: {error.message()}") from error
    finally:
        client.close()
    expected = (1, 1 + spec.max_interests, dim)
    if answer is None or answer.shape != expected:
        found = "no output" if answer is None else f"shape {answer.shape}"
        raise DeployError(f"{name} on Triton at {url}: {features.OUTPUT_NAME}: found {found}, expected {expected}")
    if not np.isfinite(answer).all():
        raise DeployError(f"{name} on Triton at {url}: the vectors of a user without history are not finite")


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


def load_interest_gpt(url: str, spec: records_pb2.InterestGptSpec, timeout: float = 120.0) -> None:
    """Load the InterestGPT that `spec` names, and see that it is the one and answers.

    An engine behind it is loaded first. Compares the parameters it reports with the spec and asks for the interests of
    a user of whom nothing is known: the answer must begin as those of the schema do. Raises DeployError.
    """
    name = spec.model_name
    client = triton_grpc.InferenceServerClient(url)
    try:
        engine = name + placement.ENGINE_SUFFIX
        if engine in {entry.name for entry in client.get_model_repository_index(client_timeout=timeout).models}:
            client.load_model(engine, client_timeout=timeout)
        client.load_model(name, client_timeout=timeout)
        if not client.is_model_ready(name, client_timeout=timeout):
            raise DeployError(f"{name}: not ready on Triton at {url} after it was loaded")
        parameters = client.get_model_config(name, client_timeout=timeout).config.parameters
        for field in placement.REPORTED:
            found = parameters[field].string_value if field in parameters else "none"
            if found != str(getattr(spec, field)):
                raise DeployError(f"{name} on Triton at {url}: {field}: found {found}, expected {getattr(spec, field)}")
        style: prompt.PromptStyle = "chat" if spec.prompt_style == "chat" else "compact"
        question = triton_grpc.InferInput(model.PROMPT, [1, 1], "BYTES")
        question.set_data_from_numpy(np.array([[prompt.render(prompt.UserFacts(), style).encode()]], np.object_))
        cells = client.infer(name, [question], client_timeout=timeout).as_numpy(model.ANSWER)
    except triton_grpc.InferenceServerException as error:
        raise DeployError(f"{name}: Triton at {url} refused it: {error.message()}") from error
    finally:
        client.close()
    text = "" if cells is None else cells.item().decode("utf-8", "replace")
    expected = answer.write_answer([]).removesuffix("]}")
    if not text.startswith(expected):
        raise DeployError(f"{name} on Triton at {url}: {model.ANSWER}: found {text[:60]!r}, expected {expected} …")


def pinned_models(snapshots_root: Path) -> set[str]:
    """Models that the retained snapshots pin.

    Raises SnapshotError when a manifest cannot be read: then nobody knows what it pins.
    """
    snapshots = (path for path in snapshots_root.iterdir() if path.is_dir() and not path.name.startswith("."))
    manifests = [layout.read_manifest(path) for path in snapshots]
    names = {name for m in manifests for name in (m.tower.model_name, m.interest_gpt.model_name)}
    return names - {""}


def unload_unused(url: str, pinned: Collection[str], timeout: float = 120.0) -> list[str]:
    """Unload the user towers and InterestGPTs that no retained snapshot pins, and return their names.

    Raises DeployError.
    """
    client = triton_grpc.InferenceServerClient(url)
    try:
        index = client.get_model_repository_index(client_timeout=timeout).models
        loaded = {model.name for model in index if model.state == "READY"}
        unused = sorted(
            name
            for name in loaded
            if name.startswith(_PINNABLE) and name.removesuffix(placement.ENGINE_SUFFIX) not in pinned
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


def _zero_inputs(spec: records_pb2.TowerSpec) -> list[triton_grpc.InferInput]:
    inputs = []
    for name, sizes in placement.input_sizes(spec).items():
        dtype, datatype = (np.float32, "FP32") if name == "interests" else (np.int32, "INT32")
        tensor = triton_grpc.InferInput(name, [1, *sizes], datatype)
        tensor.set_data_from_numpy(np.zeros((1, *sizes), dtype))
        inputs.append(tensor)
    return inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip deploy`."""
    parser.add_argument("version", nargs="?", help="snapshot to publish (default: the newest on disk)")
    parser.add_argument(
        "--build", type=Path, required=True, metavar="DIR", help="build directory: snapshots/, towers/, interest_gpt/"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="Triton's repository (default: models/ of the build)"
    )
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="also place and load this text encoder")
    parser.add_argument("--backend", choices=placement.BACKENDS, default="python", help="Triton backend of the tower")
    parser.add_argument(
        "--instances", type=int, metavar="N", help="instances of tower and encoder (default: as checked in)"
    )
    parser.add_argument("--gpu", action="store_true", help="run all models on Triton's GPUs, N on each")
    parser.add_argument(
        "--interest-gpt-threads", type=int, metavar="N", help="threads of InterestGPT on CPUs (default: as checked in)"
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
            towers_dir=args.build / "towers",
            interest_gpt_dir=args.build / "interest_gpt",
            backend=args.backend,
            instances=instances,
            interest_gpt=placement.Serving(
                args.interest_gpt_backend,
                args.gpu,
                args.interest_gpt_threads,
                placement.VllmEngine(args.models_in_triton, args.tensor_parallel),
            ),
            timeout=args.timeout,
        )
    except (DeployError, placement.PlacementError, layout.SnapshotError, PublicationRefused) as error:
        print(f"serendip deploy: {error}\nWhat was published before stays.", file=sys.stderr)
        return 1
    print(f"published {version}")
    if args.unload_unused:
        try:
            for name in unload_unused(args.triton, pinned_models(snapshots), args.timeout):
                print(f"unloaded {name}")
        except (DeployError, layout.SnapshotError) as error:
            print(f"serendip deploy: {version} is published, but unused models stay loaded: {error}", file=sys.stderr)
            return 1
    return 0
