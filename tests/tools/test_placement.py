"""Models placed in a deployment repository: whole, configured for their own sizes, and never of two trainings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serendipity import layout
from serendipity.features import INPUT_NAMES
from serendipity.groups import model as group_model
from serendipity.groups.prompt import NOVELTY_INSTRUCTIONS, RELEVANCE_INSTRUCTIONS, answer
from serendipity.interests import model
from serendipity.interests.answer import CATEGORY_FIRST, answer_schema
from serendipity.interests.prompt import INSTRUCTIONS
from serendipity.offline.export import export_onnx
from serendipity.tools import placement
from serendipity.tools.pinned_models import AS_SERVED_HERE, PREFIXES, ServingPlan, pinned_models, place_pinned
from serendipity.tools.placement import (
    PlacementError,
    place_coevolution_llms,
    place_group_encoder,
    place_interest_gpt,
    place_text_encoder,
    place_user_tower,
)
from serendipity.v1 import records_pb2
from tests.fixtures.example_tower import Sizes, Training, random_inputs, tensors, write_training
from tests.fixtures.tiny_coevolution import CATEGORIES as NOVEL_CATEGORIES
from tests.fixtures.tiny_coevolution import make_tiny_coevolution, make_tiny_group_encoder
from tests.fixtures.tiny_interest_gpt import CATEGORIES, make_tiny_interest_gpt


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training; tests that change its files take a copy."""
    return write_training(tmp_path_factory.mktemp("training") / "towers")


@pytest.fixture
def towers(training: Training, tmp_path: Path) -> Path:
    return shutil.copytree(training.directory, tmp_path / "towers")


def read(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_a_placed_tower_is_configured_for_its_own_sizes(training: Training, tmp_path: Path) -> None:
    name = place_user_tower(training.directory, tmp_path)
    assert name == f"user_tower_{training.spec.fingerprint}"
    config = read(tmp_path / name / "config.pbtxt")
    assert config.name == name
    assert config.parameters["fingerprint"].string_value == training.spec.fingerprint
    assert {tensor.name: list(tensor.dims) for tensor in config.input} == {
        "history_items": [10], "history_ages": [10], "long_categories": [6], "long_counts": [6], "long_ages": [6],
        "profile": [2], "interests": [4, 8],
    }  # fmt: skip
    assert list(config.output[0].dims) == [5, 5]
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, config.max_batch_size]
    for warm_up in config.model_warmup:
        assert {key: list(value.dims) for key, value in warm_up.inputs.items()} == {
            tensor.name: list(tensor.dims) for tensor in config.input
        }
    placed = {
        str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.*") if path.suffix != ".pyc"
    }
    assert placed == {"config.pbtxt", "1/exported_program.py", "1/model.py", "1/user_tower.pt2"}


@pytest.mark.parametrize("gpu", [False, True])
def test_instances_are_configured_as_asked(training: Training, tmp_path: Path, gpu: bool) -> None:
    name = place_user_tower(training.directory, tmp_path, instances=placement.Instances(3, gpu))
    (group,) = read(tmp_path / name / "config.pbtxt").instance_group
    assert group.count == 3
    assert group.kind == (group.KIND_GPU if gpu else group.KIND_CPU)


def test_no_instances_at_all_are_refused() -> None:
    with pytest.raises(PlacementError, match="instances: found 0, expected at least 1"):
        placement.Instances(0)


def test_sizes_without_profile_fields_keep_one_profile_column() -> None:
    sizes = placement.input_sizes(Sizes(profile_fields=0).spec())
    assert tuple(sizes) == INPUT_NAMES
    assert sizes["profile"] == [1]


def test_placing_again_changes_nothing_and_repairs_what_was_changed(training: Training, tmp_path: Path) -> None:
    name = place_user_tower(training.directory, tmp_path)
    inode = (tmp_path / name).stat().st_ino
    assert place_user_tower(training.directory, tmp_path) == name
    assert (tmp_path / name).stat().st_ino == inode
    (tmp_path / name / "1" / "user_tower.pt2").write_bytes(b"cut off")
    place_user_tower(training.directory, tmp_path)
    assert layout.sha256(tmp_path / name / "1" / "user_tower.pt2").startswith(training.spec.fingerprint)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_weights_that_are_not_those_of_the_spec_are_refused(towers: Path, tmp_path: Path) -> None:
    with (towers / "user_tower.pt2").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PlacementError, match=r"user_tower\.pt2: fingerprint: found [0-9a-f]{16}, expected"):
        place_user_tower(towers, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_model_name_that_is_not_the_fingerprints_is_refused(towers: Path, tmp_path: Path) -> None:
    spec = json.loads((towers / "tower.json").read_text())
    (towers / "tower.json").write_text(json.dumps({**spec, "model_name": "user_tower"}))
    with pytest.raises(PlacementError, match="model_name: found user_tower, expected user_tower_"):
        place_user_tower(towers, tmp_path / "models")


@pytest.mark.parametrize("missing", ["tower.json", "user_tower.pt2", "item_vectors.npy"])
def test_a_missing_file_of_the_training_is_named(towers: Path, tmp_path: Path, missing: str) -> None:
    (towers / missing).unlink()
    with pytest.raises(PlacementError, match=missing):
        place_user_tower(towers, tmp_path / "models")


def test_a_failed_placement_leaves_nothing_behind(towers: Path, tmp_path: Path) -> None:
    (towers / "user_tower.onnx").mkdir()
    with pytest.raises(PlacementError, match=r"user_tower\.onnx: missing"):
        place_user_tower(towers, tmp_path / "models", "onnxruntime")
    assert not (tmp_path / "models").exists()


def test_an_onnx_tower_is_placed_only_beside_the_training_it_was_exported_from(
    training: Training, towers: Path, tmp_path: Path
) -> None:
    example = tensors(random_inputs(training.sizes, 2))
    export_onnx(training.tower, example, towers / "user_tower.onnx", fingerprint="0" * 16)
    with pytest.raises(PlacementError, match=f"found {'0' * 16}, expected {training.spec.fingerprint}"):
        place_user_tower(towers, tmp_path / "models", "onnxruntime")
    export_onnx(training.tower, example, towers / "user_tower.onnx", fingerprint=training.spec.fingerprint)
    name = place_user_tower(towers, tmp_path / "models", "onnxruntime")
    config = read(tmp_path / "models" / name / "config.pbtxt")
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert [path.name for path in (tmp_path / "models" / name / "1").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("configuration", "dim"),
    [
        ({"model_type": "bert", "hidden_size": 384}, 384),
        ({"model_type": "clip_text_model", "hidden_size": 16, "projection_dim": 12}, 12),
        ({"model_type": "clip", "projection_dim": 512, "text_config": {"hidden_size": 16}}, 512),
    ],
)
def test_a_placed_text_encoder_says_its_dimension(tmp_path: Path, configuration: dict[str, object], dim: int) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text(json.dumps(configuration))
    (encoder / "model.safetensors").write_bytes(b"weights")
    (encoder / ".gitattributes").touch()
    assert place_text_encoder(encoder, tmp_path / "models") == "text_encoder"
    model = tmp_path / "models" / "text_encoder"
    assert list(read(model / "config.pbtxt").output[0].dims) == [dim]
    assert sorted(path.name for path in (model / "1" / "encoder").iterdir()) == ["config.json", "model.safetensors"]


def test_an_encoder_of_unknown_dimension_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(PlacementError, match="found none of hidden_size"):
        place_text_encoder(tmp_path, tmp_path / "models")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained InterestGPT; tests that change its files take a copy."""
    directory = tmp_path_factory.mktemp("tuned") / "interest_gpt"
    make_tiny_interest_gpt(directory, style="chat", max_new_tokens=100, max_batch=12)
    return directory


@pytest.fixture
def interest_gpt(tuned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tuned, tmp_path / "interest_gpt")


def change_spec(directory: Path, **fields: object) -> None:
    spec = json.loads((directory / model.SPEC).read_text())
    (directory / model.SPEC).write_text(json.dumps(spec | fields))


def test_a_placed_interest_gpt_says_which_it_is_and_its_bounds(tuned: Path, tmp_path: Path) -> None:
    name = place_interest_gpt(tuned, tmp_path, placement.Serving(gpu=True, threads=3))
    spec = model.read_spec(tuned)
    config = read(tmp_path / name / "config.pbtxt")
    assert (name, config.name) == (spec.model_name, spec.model_name)
    assert config.max_batch_size == 12
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 12]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "fingerprint": spec.fingerprint, "base": "random", "prompt_style": "chat", "max_prompt_tokens": "924",
        "max_new_tokens": "100", "threads": "3",
    }  # fmt: skip
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, group.KIND_GPU)


def test_a_placed_interest_gpt_stands_alone(tuned: Path, tmp_path: Path) -> None:
    version = tmp_path / place_interest_gpt(tuned, tmp_path) / "1"
    assert {path.name for path in version.iterdir()} - {"__pycache__"} == {
        "answer_schema.json", "constraint.py", "exchange.py", "generation.py", "instructions.txt", "model", "model.py",
        "prompts.py", "python_backend.py", "weights.py",
    }  # fmt: skip
    assert json.loads((version / "answer_schema.json").read_text()) == answer_schema(CATEGORIES, 1)
    assert (version / "instructions.txt").read_text() == INSTRUCTIONS
    assert model.read_spec(version / "model") == model.read_spec(tuned)
    for code in version.glob("*.py"):
        assert "import serendipity" not in code.read_text()
        assert "from serendipity" not in code.read_text()


def test_the_order_of_an_answers_fields_is_the_models(interest_gpt: Path, tmp_path: Path) -> None:
    change_spec(interest_gpt, answerFields=CATEGORY_FIRST)
    version = tmp_path / "models" / place_interest_gpt(interest_gpt, tmp_path / "models") / "1"
    schema = json.loads((version / "answer_schema.json").read_text())
    assert schema == answer_schema(CATEGORIES, 1, CATEGORY_FIRST)
    assert list(schema["properties"]["interests"]["items"]["properties"]) == list(CATEGORY_FIRST)


def test_what_a_model_was_trained_on_is_not_placed(interest_gpt: Path, tmp_path: Path) -> None:
    (interest_gpt / "dataset").mkdir()
    (interest_gpt / "dataset" / "dataset.parquet").write_bytes(b"what users did")
    (interest_gpt / ".stamp.json").write_text("{}")
    placed = tmp_path / "models" / place_interest_gpt(interest_gpt, tmp_path / "models") / "1" / "model"
    assert {path.name for path in placed.iterdir()} == {
        path.name for path in interest_gpt.iterdir() if path.name not in ("dataset", ".stamp.json")
    }


def test_behind_vllm_an_engine_is_placed_too_and_reads_the_same_weights(tuned: Path, tmp_path: Path) -> None:
    engine = placement.VllmEngine(Path("/models"), tensor_parallel_size=2)
    name = place_interest_gpt(tuned, tmp_path, placement.Serving("vllm", engine=engine))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, name + "_engine"]
    front = read(tmp_path / name / "config.pbtxt")
    assert (front.name, front.backend, front.max_batch_size) == (name, "python", 12)
    assert front.parameters["engine"].string_value == name + "_engine"
    assert front.parameters["fingerprint"].string_value == model.read_spec(tuned).fingerprint
    version = tmp_path / name / "1"
    assert {path.name for path in version.iterdir()} - {"__pycache__"} == {
        "answer_schema.json", "exchange.py", "instructions.txt", "model", "model.py", "prompts.py",
        "python_backend.py", "weights.py",
    }  # fmt: skip
    config = read(tmp_path / f"{name}_engine" / "config.pbtxt")
    assert (config.name, config.backend) == (name + "_engine", "vllm")
    arguments = json.loads((tmp_path / f"{name}_engine" / "1" / "model.json").read_text())
    assert arguments["model"] == f"/models/{name}/1/model"
    assert (arguments["max_model_len"], arguments["tensor_parallel_size"]) == (1024, 2)
    here = placement.place_interest_gpt(tuned, tmp_path / "here", placement.Serving("vllm"))
    arguments = json.loads((tmp_path / "here" / f"{here}_engine" / "1" / "model.json").read_text())
    assert Path(arguments["model"]).samefile(tmp_path / "here" / here / "1" / "model")


def test_placing_an_interest_gpt_again_changes_nothing(tuned: Path, tmp_path: Path) -> None:
    name = place_interest_gpt(tuned, tmp_path)
    inode = (tmp_path / name).stat().st_ino
    assert place_interest_gpt(tuned, tmp_path) == name
    assert (tmp_path / name).stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_weights_of_another_interest_gpt_are_refused(interest_gpt: Path, tmp_path: Path) -> None:
    with (interest_gpt / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PlacementError, match=r"interest_gpt\.json: fingerprint: found '[0-9a-f]{16}', expected"):
        place_interest_gpt(interest_gpt, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("modelName", "interest_gpt", "model_name: found 'interest_gpt', expected interest_gpt_[0-9a-f]{16}"),
        ("promptStyle", "prose", "prompt_style: found 'prose', expected one of compact, chat"),
        ("answerFields", ["category"], r"answer_fields: found \['category'\], expected \['seed', .*\], any order"),
        ("numInterests", 0, "num_interests: found 0, expected at least 1"),
        ("maxBatch", 0, "max_batch: found 0, expected at least 1"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused(
    interest_gpt: Path, tmp_path: Path, field: str, value: object, expected: str
) -> None:
    change_spec(interest_gpt, **{field: value})
    with pytest.raises(PlacementError, match=rf"interest_gpt\.json: {expected}"):
        place_interest_gpt(interest_gpt, tmp_path / "models")


@pytest.mark.parametrize(
    ("content", "found"),
    [("{", "cannot be read"), ("[]", r"found \[\], expected"), ('{"a": 1}', "found {'a': 1}, exp")],
)
def test_categories_that_are_none_are_refused(interest_gpt: Path, tmp_path: Path, content: str, found: str) -> None:
    (interest_gpt / model.CATEGORIES).write_text(content)
    fingerprint = model.fingerprint(interest_gpt)
    change_spec(interest_gpt, fingerprint=fingerprint, modelName=model.MODEL_PREFIX + fingerprint)
    with pytest.raises(PlacementError, match=rf"categories\.json: {found}"):
        place_interest_gpt(interest_gpt, tmp_path / "models")


@pytest.mark.parametrize("missing", [model.SPEC, model.CATEGORIES, "tokenizer.json", "model.safetensors"])
def test_a_missing_file_of_an_interest_gpt_is_named(interest_gpt: Path, tmp_path: Path, missing: str) -> None:
    (interest_gpt / missing).unlink()
    with pytest.raises(PlacementError, match=missing.removeprefix("model")):
        place_interest_gpt(interest_gpt, tmp_path / "models")


def test_a_directory_that_is_no_interest_gpt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"interest_gpt\.json: cannot be read"):
        place_interest_gpt(tmp_path, tmp_path / "models")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A group model; tests that change its files take a copy."""
    directory = tmp_path_factory.mktemp("trained") / "groups"
    make_tiny_group_encoder(directory, max_batch=12)
    return directory


@pytest.fixture(scope="module")
def llms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Novelty and a Relevance LLM; tests that change their files take a copy."""
    directory = tmp_path_factory.mktemp("trained") / "coevolution"
    make_tiny_coevolution(directory, max_batch=12)
    return directory


@pytest.fixture
def groups(encoders: Path, tmp_path: Path) -> Path:
    return shutil.copytree(encoders, tmp_path / "groups")


@pytest.fixture
def coevolution(llms: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llms, tmp_path / "coevolution")


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_placed_group_encoder_is_configured_for_its_own_sizes(encoders: Path, tmp_path: Path) -> None:
    name = place_group_encoder(encoders, tmp_path, placement.Instances(2))
    spec = group_model.read_group_spec(encoders)
    config = read(tmp_path / name / "config.pbtxt")
    assert (name, config.name, config.max_batch_size) == (spec.model_name, spec.model_name, 12)
    assert config.parameters["fingerprint"].string_value == spec.fingerprint
    assert {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)} == {
        "sequence": [6], "profile": [2], "csid": [3], "group_id": [1],
    }  # fmt: skip
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 12]
    assert config.instance_group[0].count == 2
    assert {path.name for path in (tmp_path / name / "1").iterdir()} - {"__pycache__"} == {
        "exported_program.py", "group_encoder.pt2", "model.py",
    }  # fmt: skip


def test_placed_llms_say_which_they_are_and_their_bounds(llms: Path, tmp_path: Path) -> None:
    spec = group_model.read_coevolution_spec(llms)
    names = place_coevolution_llms(llms, tmp_path, placement.LanguageModelServing(gpu=True, threads=3))
    assert names == (spec.novelty_model_name, spec.relevance_model_name)
    for name, fingerprint in zip(names, (spec.novelty_fingerprint, spec.relevance_fingerprint), strict=True):
        config = read(tmp_path / name / "config.pbtxt")
        assert (config.name, config.max_batch_size) == (name, 12)
        assert list(config.dynamic_batching.preferred_batch_size) == [8, 12]
        assert {key: value.string_value for key, value in config.parameters.items()} == {
            "fingerprint": fingerprint, "base": "random", "prompt_style": "compact", "max_prompt_tokens": "960",
            "threads": "3",
        }  # fmt: skip
        (group,) = config.instance_group
        assert (group.count, group.kind) == (1, group.KIND_GPU)


def test_placed_llms_stand_alone(llms: Path, tmp_path: Path) -> None:
    novelty, relevance = (tmp_path / name / "1" for name in place_coevolution_llms(llms, tmp_path))
    shared = {"decoding.py", "instructions.txt", "model", "model.py", "prompts.py", "python_backend.py", "weights.py"}
    found = [{path.name for path in version.iterdir()} - {"__pycache__"} for version in (novelty, relevance)]
    assert found == [shared | {"answers.json", "category_trie.py", "ranking.py"}, shared | {"scoring.py"}]
    assert json.loads((novelty / "answers.json").read_text()) == [answer(name, "compact") for name in NOVEL_CATEGORIES]
    assert (novelty / "instructions.txt").read_text() == NOVELTY_INSTRUCTIONS
    assert (relevance / "instructions.txt").read_text() == RELEVANCE_INSTRUCTIONS


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("modelName", "group_encoder", "model_name: found 'group_encoder', expected group_encoder_[0-9a-f]{16}"),
        ("maxBatch", 0, "max_batch: found 0, expected at least 1"),
        ("numGroups", 0, "num_groups: found 0, expected at least 1"),
        ("fingerprint", "0" * 16, f"fingerprint: found '{'0' * 16}', expected"),
    ],
)
def test_a_group_model_that_cannot_be_served_is_refused(
    groups: Path, tmp_path: Path, field: str, value: object, expected: str
) -> None:
    change(groups / group_model.GROUP_SPEC, **{field: value})
    with pytest.raises(PlacementError, match=rf"groups\.json: {expected}"):
        place_group_encoder(groups, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("noveltyModelName", "novelty", "novelty_model_name: found 'novelty', expected novelty_llm_[0-9a-f]{16}"),
        ("relevanceModelName", "", "relevance_model_name: found '', expected relevance_llm_[0-9a-f]{16}"),
        ("relevanceFingerprint", "", "relevance_fingerprint: found '', expected"),
        ("promptStyle", "prose", "prompt_style: found 'prose', expected one of compact, chat"),
        ("maxPromptTokens", 0, "max_prompt_tokens: found 0, expected at least 1"),
    ],
)
def test_llms_that_cannot_be_served_are_refused(
    coevolution: Path, tmp_path: Path, field: str, value: object, expected: str
) -> None:
    change(coevolution / group_model.COEVOLUTION_SPEC, **{field: value})
    with pytest.raises(PlacementError, match=rf"coevolution\.json: {expected}"):
        place_coevolution_llms(coevolution, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("missing", ["tokenizer.json", "categories.json", "model.safetensors"])
@pytest.mark.parametrize("kind", [group_model.NOVELTY, group_model.RELEVANCE])
def test_a_missing_file_of_an_llm_is_named(coevolution: Path, tmp_path: Path, kind: str, missing: str) -> None:
    (coevolution / kind / missing).unlink()
    with pytest.raises(PlacementError, match=rf"{kind}.*{missing.removeprefix('model')}"):
        place_coevolution_llms(coevolution, tmp_path / "models")


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_at_all_are_refused(threads: int) -> None:
    with pytest.raises(PlacementError, match=f"threads: found {threads}, expected at least 1"):
        placement.LanguageModelServing(threads=threads)


@pytest.fixture
def build(training: Training, tuned: Path, groups: Path, coevolution: Path, tmp_path: Path) -> Path:
    """A build directory with a training of every kind."""
    shutil.copytree(training.directory, tmp_path / "towers")
    shutil.copytree(tuned, tmp_path / "interest_gpt")
    return tmp_path


def manifest_of(build: Path) -> records_pb2.Manifest:
    return records_pb2.Manifest(
        version="v1",
        tower=placement.read_spec(build / "towers"),
        interest_gpt=model.read_spec(build / "interest_gpt"),
        groups=group_model.read_group_spec(build / "groups"),
        coevolution=group_model.read_coevolution_spec(build / "coevolution"),
    )


def test_every_model_that_a_manifest_pins_is_placed_and_none_that_it_does_not(build: Path) -> None:
    manifest = manifest_of(build)
    names = place_pinned(manifest, build, build / "models", ServingPlan(instances=placement.Instances(3)))
    assert sorted(path.name for path in (build / "models").iterdir()) == sorted(names)
    assert [name.startswith(prefix) for name, prefix in zip(names, PREFIXES, strict=True)] == [True] * 5
    counts = [read(build / "models" / name / "config.pbtxt").instance_group[0].count for name in names]
    assert counts == [3, 1, 3, 1, 1]
    older = records_pb2.Manifest(tower=manifest.tower)
    assert place_pinned(older, build, build / "older") == [manifest.tower.model_name]
    assert [path.name for path in (build / "older").iterdir()] == [manifest.tower.model_name]


@pytest.mark.parametrize("part", ["tower", "interest_gpt", "groups", "coevolution"])
def test_a_training_that_is_not_the_one_that_is_pinned_is_refused(build: Path, part: str) -> None:
    manifest = manifest_of(build)
    spec = getattr(manifest, part)
    for field in spec.DESCRIPTOR.fields:
        if field.name.endswith("model_name"):
            setattr(spec, field.name, getattr(spec, field.name)[:-16] + "0" * 16)
        if field.name.endswith("fingerprint"):
            setattr(spec, field.name, "0" * 16)
    directory = {"tower": "towers"}.get(part, part)
    with pytest.raises(PlacementError, match=rf"{directory}: fingerprint: found [0-9a-f]{{16}}, expected {'0' * 16}"):
        place_pinned(manifest, build, build / "models", AS_SERVED_HERE)


def test_every_pinned_model_is_told_by_its_fingerprint_and_asked_something(build: Path) -> None:
    for pinned in pinned_models(manifest_of(build)):
        assert pinned.name.endswith(pinned.reported["fingerprint"])
        assert pinned.question
        assert pinned.outputs
