import pytest
from pydantic import ValidationError

from serendipity.offline.towers.config import FactorBlock, FactorsConfig, LossConfig, TowersConfig


def test_every_field_says_what_it_is() -> None:
    configs = [TowersConfig, FactorBlock, FactorsConfig, LossConfig]
    configs += [type(value) for value in (TowersConfig().rows, TowersConfig().trainer)]
    for config in configs:
        for name, field in config.model_fields.items():
            assert field.description, f"{config.__name__}.{name}"


def test_vectors_must_hold_the_factors_and_more() -> None:
    with pytest.raises(ValidationError, match="vector_dim: found 49, expected at least 50"):
        TowersConfig(vector_dim=49)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        TowersConfig.model_validate({"trainer": {"epochs": 3}})
