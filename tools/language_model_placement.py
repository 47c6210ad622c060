"""A language model into a Triton deployment repository: configuration, code, texts and weights in one directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from serendipity.tools.deployment_repository import (
    MODEL_REPOSITORY,
    Instances,
    PlacementError,
    copy_code,
    install,
    parse,
    set_instances,
)

SHARED = tuple(
    MODEL_REPOSITORY / "interest_gpt" / "1" / name for name in ("prompts.py", "python_backend.py", "weights.py")
)
"""Code of InterestGPT that every language model needs beside its own."""

INSTRUCTIONS = "instructions.txt"
"""File of the system message, beside the code."""


@dataclass(frozen=True)
class LanguageModelServing:
    """How the Python backend runs a language model: one instance, which holds all of it.

    threads: of the instance on CPUs; None: as checked in.
    """

    gpu: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise PlacementError(f"threads: found {self.threads}, expected at least 1")

    @property
    def instances(self) -> Instances:
        """Where the instance runs."""
        return Instances(gpu=self.gpu)

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of the model's configuration that say so."""
        return {} if self.threads is None else {"threads": str(self.threads)}


LLM_AS_CHECKED_IN = LanguageModelServing()


def language_model_configuration(
    template: str, name: str, max_batch: int, instances: Instances, parameters: Mapping[str, object]
) -> str:
    """Fill in a language model's config.pbtxt: name, batch sizes, and parameters by name."""
    config = parse(template)
    config.name = name
    config.max_batch_size = max_batch
    preferred: Sequence[int] = config.dynamic_batching.preferred_batch_size
    config.dynamic_batching.preferred_batch_size[:] = [size for size in preferred if size < max_batch] + [max_batch]
    for key, value in parameters.items():
        config.parameters[key].string_value = str(value)
    set_instances(config, instances)
    return str(text_format.MessageToString(config))


def install_language_model(
    models_dir: Path, name: str, configuration: str, modules: Iterable[Path], texts: Mapping[str, str], weights: Path
) -> None:
    """Install a model: code and texts (by file name) in its version's directory, weights below it in model/.

    weights: a directory as `save_pretrained` writes it.
    """

    def fill(placed: Path) -> None:
        version = copy_code(modules, placed, configuration)
        for file_name, text in texts.items():
            (version / file_name).write_text(text, encoding="utf-8")
        model = version / "model"
        model.mkdir()
        # Directories beside the model are what it was trained on and checkpoints: none of Triton's business.
        for path in weights.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copyfile(path, model / path.name)

    install(models_dir, name, fill)


def read_categories(path: Path) -> list[str]:
    """Read the names of the categories a model may answer with. Raises PlacementError."""
    try:
        categories = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlacementError(f"{path}: cannot be read ({error}); expected a JSON list of categories") from error
    if not isinstance(categories, list) or not categories or not all(isinstance(name, str) for name in categories):
        raise PlacementError(f"{path}: found {str(categories)[:60]}, expected a list of one or more names")
    return categories


def expect_name(path: Path, field: str, found: str, expected: str) -> None:
    """Raise PlacementError unless a spec names the model as its weights do."""
    if found != expected:
        raise PlacementError(f"{path}: {field}: found {found!r}, expected {expected}")


def expect_positive(path: Path, spec: object, fields: Iterable[str]) -> None:
    """Raise PlacementError for a field of a spec that is below 1."""
    for field in fields:
        if getattr(spec, field) < 1:
            raise PlacementError(f"{path}: {field}: found {getattr(spec, field)}, expected at least 1")
