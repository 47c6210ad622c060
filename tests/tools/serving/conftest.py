"""Trainings of every kind, as builds keep them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.fixtures.example_tower import Training, write_training
from tests.fixtures.tiny_coevolution import make_tiny_coevolution
from tests.fixtures.tiny_interest_gpt import make_tiny_interest_gpt


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training; tests that change its files take a copy."""
    return write_training(tmp_path_factory.mktemp("training") / "towers")


@pytest.fixture
def towers(training: Training, tmp_path: Path) -> Path:
    return shutil.copytree(training.directory, tmp_path / "towers")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained InterestGPT; tests that change its files take a copy."""
    directory = tmp_path_factory.mktemp("tuned") / "interest_gpt"
    make_tiny_interest_gpt(directory, style="chat", max_new_tokens=100, max_batch=12)
    return directory


@pytest.fixture
def interest_gpt(tuned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tuned, tmp_path / "interest_gpt")


@pytest.fixture(scope="module")
def llms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Novelty and a Relevance LLM; tests that change their files take a copy."""
    directory = tmp_path_factory.mktemp("trained") / "coevolution"
    make_tiny_coevolution(directory, max_batch=12)
    return directory


@pytest.fixture
def coevolution(llms: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llms, tmp_path / "coevolution")


@pytest.fixture
def build(training: Training, tuned: Path, coevolution: Path, tmp_path: Path) -> Path:
    """A build directory with a training of every kind."""
    shutil.copytree(training.directory, tmp_path / "towers")
    shutil.copytree(tuned, tmp_path / "interest_gpt")
    return tmp_path


def read(path: Path) -> model_config_pb2.ModelConfig:
    """Read a config.pbtxt."""
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
