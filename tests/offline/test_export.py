"""Towers out of PyTorch: what was written answers as the module does, for any number of users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from serendipity import features
from serendipity.offline.export import ExportError, check_onnx, export_onnx, export_program, load_program
from serendipity.offline.finite import DivergedError
from tests.fixtures.example_tower import ExampleTower, Sizes, random_inputs, tensors

SIZES = Sizes()
EXAMPLE = tensors(random_inputs(SIZES, 2))


@pytest.fixture(scope="module")
def tower() -> ExampleTower:
    return ExampleTower(SIZES, seed=0).eval()


class FixedBatch(nn.Module):
    """Asks a tensor for its length, which makes a constant of the number of users."""

    def forward(
        self,
        history_items: torch.Tensor,
        history_ages: torch.Tensor,
        long_categories: torch.Tensor,
        long_counts: torch.Tensor,
        long_ages: torch.Tensor,
        profile: torch.Tensor,
        interests: torch.Tensor,
    ) -> torch.Tensor:
        return interests * torch.ones(len(history_items), 1, 1)


@pytest.mark.parametrize("users", [1, 2, 7])
def test_an_exported_program_answers_as_the_module(tower: ExampleTower, tmp_path: Path, users: int) -> None:
    path = tmp_path / "towers" / "user_tower.pt2"
    fingerprint = export_program(tower, EXAMPLE, path)
    assert fingerprint == features.tower_fingerprint(path)
    inputs = tensors(random_inputs(SIZES, users, seed=users))
    with torch.inference_mode():
        torch.testing.assert_close(load_program(path)(*inputs), tower(*inputs), atol=1e-6, rtol=0)
    assert [entry.name for entry in path.parent.iterdir()] == ["user_tower.pt2"]


@pytest.mark.parametrize("interests", [1, 2, 3, 9])
def test_what_is_exported_takes_any_number_of_interests(tower: ExampleTower, tmp_path: Path, interests: int) -> None:
    export_program(tower, EXAMPLE, tmp_path / "user_tower.pt2")
    export_onnx(tower, EXAMPLE, tmp_path / "user_tower.onnx")
    inputs = random_inputs(replace(SIZES, max_interests=interests), 3)
    with torch.inference_mode():
        expected = tower(*tensors(inputs))
        program = load_program(tmp_path / "user_tower.pt2")(*tensors(inputs))
    assert expected.shape == (3, 1 + interests, SIZES.dim)
    torch.testing.assert_close(program, expected, atol=1e-6, rtol=0)
    session = onnxruntime.InferenceSession(str(tmp_path / "user_tower.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run([features.OUTPUT_NAME], inputs.arrays())
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


def test_one_example_user_is_enough(tower: ExampleTower, tmp_path: Path) -> None:
    export_program(tower, [tensor[:1] for tensor in EXAMPLE], tmp_path / "user_tower.pt2")
    with torch.inference_mode():
        assert load_program(tmp_path / "user_tower.pt2")(*EXAMPLE).shape == (2, 5, 5)


def test_it_is_exported_in_evaluation_mode_and_left_in_its_own(tmp_path: Path) -> None:
    tower = ExampleTower(SIZES, seed=0)
    tower.leave = nn.Sequential(tower.leave, nn.Dropout(0.5))
    tower.train()
    export_program(tower, EXAMPLE, tmp_path / "user_tower.pt2")
    assert tower.training
    with torch.inference_mode():
        torch.testing.assert_close(load_program(tmp_path / "user_tower.pt2")(*EXAMPLE), tower.eval()(*EXAMPLE))


def test_a_module_that_fixes_the_number_of_users_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"never len\(tensor\)"):
        export_program(FixedBatch(), EXAMPLE, tmp_path / "user_tower.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_tower_of_nan_is_refused_and_the_old_program_stays(tower: ExampleTower, tmp_path: Path) -> None:
    path = tmp_path / "user_tower.pt2"
    fingerprint = export_program(tower, EXAMPLE, path)
    broken = ExampleTower(SIZES, seed=0)
    nn.init.constant_(broken.null_interest, float("nan"))
    for write in (export_program, export_onnx):
        with pytest.raises(DivergedError, match=r"user_tower\.pt2, null_interest: found weight nan, expected finite"):
            write(broken, EXAMPLE, path)
    assert features.tower_fingerprint(path) == fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["user_tower.pt2"]


def test_a_missing_input_is_named(tower: ExampleTower, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="found 6 tensors, expected 7: history_items"):
        export_program(tower, EXAMPLE[:-1], tmp_path / "user_tower.pt2")


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "user_tower.pt2"
    path.write_bytes(b"not a program")
    with pytest.raises(ExportError, match=r"user_tower\.pt2: not an exported program"):
        load_program(path)


def test_onnx_answers_as_the_module_under_the_shared_names(tower: ExampleTower, tmp_path: Path) -> None:
    path = tmp_path / "user_tower.onnx"
    export_onnx(tower, EXAMPLE, path, fingerprint="0123456789abcdef")
    assert check_onnx(tower, EXAMPLE, path) <= 1e-5
    model = onnx.load(str(path))
    assert tuple(entry.name for entry in model.graph.input) == features.INPUT_NAMES
    assert [entry.name for entry in model.graph.output] == [features.OUTPUT_NAME]
    assert {entry.key: entry.value for entry in model.metadata_props}[features.ONNX_FINGERPRINT] == "0123456789abcdef"
    assert [entry.name for entry in tmp_path.iterdir()] == ["user_tower.onnx"]


def test_onnx_of_another_training_is_told_apart(tower: ExampleTower, tmp_path: Path) -> None:
    path = tmp_path / "user_tower.onnx"
    export_onnx(ExampleTower(SIZES, seed=1), EXAMPLE, path)
    with pytest.raises(ExportError, match=r"user_tower\.onnx: differs from the module by"):
        check_onnx(tower, EXAMPLE, path)
