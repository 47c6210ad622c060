"""A trained InterestGPT into a Triton deployment repository: under the Python backend, or in front of vLLM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.protobuf import text_format

from serendipity.interests import model
from serendipity.interests.answer import FIELDS, answer_schema
from serendipity.interests.prompt import INSTRUCTIONS, STYLES
from serendipity.tools.deployment_repository import (
    AS_CHECKED_IN,
    MODEL_REPOSITORY,
    PlacementError,
    copy_code,
    install,
    parse,
)
from serendipity.tools.language_model_placement import INSTRUCTIONS as INSTRUCTIONS_FILE
from serendipity.tools.language_model_placement import (
    SHARED,
    LanguageModelServing,
    expect_name,
    expect_positive,
    install_language_model,
    language_model_configuration,
    read_categories,
)
from serendipity.v1 import records_pb2

InterestGptBackend = Literal["python", "vllm"]
INTEREST_GPT_BACKENDS: tuple[InterestGptBackend, ...] = ("python", "vllm")

REPORTED = ("fingerprint", "base", "prompt_style", "max_prompt_tokens", "max_new_tokens")
"""Fields of the spec that a placed InterestGPT reports as parameters."""

ENGINE_SUFFIX = "_engine"
"""What follows the model's name in that of the vLLM model behind it."""

_PYTHON = MODEL_REPOSITORY / "interest_gpt"
_VLLM = MODEL_REPOSITORY / "interest_gpt_vllm"
_ENGINE = MODEL_REPOSITORY / "interest_gpt_vllm_engine"
_CONSTRAINT = MODEL_REPOSITORY.parent / "interests" / "constraint.py"
_SHARED_WITH_VLLM = (_PYTHON / "1" / "exchange.py", *SHARED)


@dataclass(frozen=True)
class VllmEngine:
    """What vLLM is told beside the model. repository: the deployment repository as Triton sees it; None: as here."""

    repository: Path | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.85


@dataclass(frozen=True)
class Serving:
    """How Triton runs an InterestGPT.

    backend: "vllm" places an engine, <name>_engine, and in front of it a model that is asked as the other is. gpu and
    threads: of the Python backend, whose one instance holds the whole model; threads of it on CPUs, None: as checked
    in. engine: with "vllm".
    """

    backend: InterestGptBackend = "python"
    gpu: bool = False
    threads: int | None = None
    engine: VllmEngine = VllmEngine()


AS_SERVED_HERE = Serving()


def place_interest_gpt(model_dir: Path, models_dir: Path, serving: Serving = AS_SERVED_HERE) -> str:
    """Place a trained InterestGPT below `models_dir` and return the model's name, interest_gpt_<fingerprint>.

    model_dir: a directory as `serendipity.interests.model` describes it. Readers of `models_dir` see whole models or
    none. Raises PlacementError.
    """
    spec = read_interest_gpt_spec(model_dir)
    schema = answer_schema(
        read_categories(model_dir / model.CATEGORIES), spec.num_interests, spec.answer_fields or FIELDS
    )
    source = _PYTHON if serving.backend == "python" else _VLLM
    template = (source / "config.pbtxt").read_text(encoding="utf-8")
    if serving.backend == "python":
        modules = [*_PYTHON.glob("1/*.py"), _CONSTRAINT]
        here = LanguageModelServing(serving.gpu, serving.threads)
        parameters, instances = here.parameters, here.instances
    else:
        modules = [*_VLLM.glob("1/*.py"), *_SHARED_WITH_VLLM]
        parameters = {"engine": spec.model_name + ENGINE_SUFFIX}
        instances = AS_CHECKED_IN
        _place_engine(spec, models_dir, serving.engine)
    configuration = language_model_configuration(
        template,
        spec.model_name,
        spec.max_batch,
        instances,
        {**{name: getattr(spec, name) for name in REPORTED}, **parameters},
    )
    texts = {"answer_schema.json": json.dumps(schema, ensure_ascii=False), INSTRUCTIONS_FILE: INSTRUCTIONS}
    install_language_model(models_dir, spec.model_name, configuration, modules, texts, model_dir)
    return spec.model_name


def read_interest_gpt_spec(model_dir: Path) -> records_pb2.InterestGptSpec:
    """Read the spec of an InterestGPT and check that it can be placed. Raises PlacementError."""
    path = model_dir / model.SPEC
    try:
        spec = model.read_spec(model_dir)
    except model.InterestGptError as error:
        raise PlacementError(str(error)) from error
    expect_name(path, "model_name", spec.model_name, model.MODEL_PREFIX + spec.fingerprint)
    if spec.prompt_style not in STYLES:
        raise PlacementError(f"{path}: prompt_style: found {spec.prompt_style!r}, expected one of {', '.join(STYLES)}")
    if spec.answer_fields and sorted(spec.answer_fields) != sorted(FIELDS):
        raise PlacementError(
            f"{path}: answer_fields: found {list(spec.answer_fields)}, expected {list(FIELDS)}, any order"
        )
    expect_positive(path, spec, ("num_interests", "max_new_tokens", "max_prompt_tokens", "max_batch"))
    return spec


def _place_engine(spec: records_pb2.InterestGptSpec, models_dir: Path, engine: VllmEngine) -> None:
    """Place the vLLM model; it reads the weights that lie with the model in front of it."""
    repository = models_dir.resolve() if engine.repository is None else engine.repository
    arguments = {
        "model": str(repository / spec.model_name / "1" / "model"),
        "max_model_len": spec.max_prompt_tokens + spec.max_new_tokens,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        # Every prompt of the chat style begins with the same instructions.
        "enable_prefix_caching": True,
        # llguidance, as under the Python backend; it obeys the white space that the schema asks for.
        "structured_outputs_config": {"backend": "guidance"},
    }
    config = parse((_ENGINE / "config.pbtxt").read_text(encoding="utf-8"))
    config.name = spec.model_name + ENGINE_SUFFIX

    def fill(placed: Path) -> None:
        version = copy_code([], placed, text_format.MessageToString(config))
        (version / "model.json").write_text(json.dumps(arguments, indent=2), encoding="utf-8")

    install(models_dir, config.name, fill)
