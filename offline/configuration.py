"""What every part of a build's configuration has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Configuration(BaseModel):
    """A table of the configuration: frozen, and refusing unknown fields. A field's docstring describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
