"""A snapshot's models on Triton: placed, loaded and checked before it is published; unloaded when none pins them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from serendipity import layout
from serendipity.tools.serving.kinds import AS_CHECKED_IN, PINNED, Kind, ServedModel, Serving
from serendipity.tools.serving.repository import install
from serendipity.tools.serving.trainings import PlacementError
from serendipity.triton import TritonAddress, fault_of
from serendipity.v1 import records_pb2


class DeployError(Exception):
    """A model on Triton is not what the snapshot pins: names the model, what was found and what was expected."""


def deploy(
    snapshot_dir: Path,
    build_dir: Path,
    models_dir: Path,
    url: str,
    publish: Callable[[str], None],
    serving: Serving = AS_CHECKED_IN,
    timeout: float = 120.0,
) -> str:
    """Place, load, check and publish; return the snapshot's version.

    snapshot_dir: snapshots/<version>. build_dir: holds the trainings of the models that it pins. models_dir: Triton's
    model repository, as this machine sees it. url: of Triton's gRPC port, as `triton.check_url` takes it; told over
    HTTP to load a model, it answers no call over HTTP meanwhile. publish: makes a version the wanted one; called only
    when the models it pins answer. timeout: seconds per call to Triton.

    Raises SnapshotError, PlacementError, DeployError, or what `publish` raises.
    """
    manifest = layout.read_manifest(snapshot_dir)
    place_pinned(manifest, build_dir, models_dir, serving)
    for model in pinned_models(manifest):
        load(url, model, timeout)
    publish(manifest.version)
    return manifest.version


def pinned_models(manifest: records_pb2.Manifest) -> list[ServedModel]:
    """List the models that a manifest pins."""
    return [model for kind in PINNED if (model := kind.pinned(manifest))]


def place(kind: Kind, training: Path, models_dir: Path, serving: Serving = AS_CHECKED_IN) -> str:
    """Place the model of a training below `models_dir` and return its name. Raises PlacementError."""
    model = kind.trained(training, serving)
    install(model, training, models_dir)
    return model.name


def place_pinned(
    manifest: records_pb2.Manifest, build_dir: Path, models_dir: Path, serving: Serving = AS_CHECKED_IN
) -> list[str]:
    """Place every model that a manifest pins from the trainings of a build, and return their names.

    Raises PlacementError, also where a build's training is not the one that is pinned; then nothing is placed.
    """
    trained: list[tuple[ServedModel, Path]] = []
    for kind in PINNED:
        if pinned := kind.pinned(manifest):
            training = build_dir / kind.training
            model = kind.trained(training, serving)
            if model.name != pinned.name:
                raise PlacementError(
                    f"{training}: fingerprint: found {model.reported['fingerprint']}, expected "
                    f"{pinned.reported['fingerprint']}, which snapshot {manifest.version} pins as {pinned.name}"
                )
            trained.append((model, training))
    for model, training in trained:
        install(model, training, models_dir)
    return [model.name for model, _ in trained]


def load(url: str, model: ServedModel, timeout: float = 120.0) -> None:
    """Load a model, and see that it is the one that is meant and answers.

    Loads it (EXPLICIT model control), waits until it is ready, compares the parameters it reports, and asks it one
    question, which also warms it up. Raises DeployError.
    """
    name, where = model.name, f"{model.name} on Triton at {url}"
    with _triton(url, f"{name}: Triton at {url} refused it") as client:
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
    for output, check in model.answer.items():
        values = result.as_numpy(output)
        if values is None:
            raise DeployError(f"{where}: {output}: found no output")
        try:
            check(values)
        except ValueError as error:
            raise DeployError(f"{where}: {output}: {error}") from error


def tensor(name: str, values: NDArray[Any]) -> Any:
    """Make Triton's input of an array."""
    made = triton_grpc.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values)
    return made


def retained_models(snapshots_root: Path) -> set[str]:
    """Names of the models that the retained snapshots pin.

    Raises SnapshotError when a manifest cannot be read: then nobody knows what it pins.
    """
    snapshots = (path for path in snapshots_root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {model.name for path in snapshots for model in pinned_models(layout.read_manifest(path))}


def unload_unused(url: str, retained: Collection[str], timeout: float = 120.0) -> list[str]:
    """Unload the models that a snapshot can pin and no retained one does, and return their names.

    Raises DeployError.
    """
    prefixes = tuple(kind.prefix for kind in PINNED)
    with _triton(url, f"Triton at {url}") as client:
        index = client.get_model_repository_index(client_timeout=timeout).models
        ready = {entry.name for entry in index if entry.state == "READY"}
        unused = sorted(name for name in ready if name.startswith(prefixes) and name not in retained)
        for name in unused:
            client.unload_model(name, client_timeout=timeout)
    return unused


def fault_of_server(url: str, timeout: float = 120.0) -> str:
    """Say why the server at a gRPC address is not for production; empty where it is. Raises DeployError."""
    with _triton(url, f"Triton at {url} refused it") as client:
        return fault_of(client.get_server_metadata(client_timeout=timeout).version)


@contextmanager
def _triton(url: str, refused: str) -> Iterator[Any]:
    """Give a client, and turn Triton's errors into DeployError that begins with `refused`."""
    try:
        address = TritonAddress.of(url)
        files = [(address.tls or {}).get(name) for name in ("ca", "key", "certificate")]
        read = [Path(file).read_bytes() if file else None for file in files]
    except (OSError, ValueError) as error:
        raise DeployError(f"{refused}: {error}") from error
    credentials = None if address.tls is None else grpc.ssl_channel_credentials(*read)
    client = triton_grpc.InferenceServerClient(address.netloc, creds=credentials)
    try:
        yield client
    except triton_grpc.InferenceServerException as error:
        raise DeployError(f"{refused}: {error.message()}") from error
    finally:
        client.close()
