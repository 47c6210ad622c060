"""What every part of a build's configuration has in common, and all of it as a file to be edited."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.fields import FieldInfo

_WIDTH = 110
"""Columns of the file's comments."""

_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def _unix_seconds(value: object) -> object:
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return value


UnixSeconds = Annotated[int, BeforeValidator(_unix_seconds)]
"""A moment, given as Unix seconds or in ISO 8601; without a zone: UTC."""


class Configuration(BaseModel):
    """A table of the configuration: frozen, and refusing unknown fields. A field's docstring describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, given: Any) -> Any:
        """Lay a table that gives some keys over the field's own default, which may differ from its class's."""
        if not isinstance(given, Mapping):
            return given
        laid = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Configuration) and isinstance(given.get(name), Mapping):
                laid[name] = laid_over(field.default.model_dump(exclude_unset=True), given[name])
        return laid


class Key(NamedTuple):
    """A key of the configuration. kind: of its table; table: the table's name, with [] where there may be several of
    it; optional: whether the table is there only when it is wanted."""

    kind: type[Configuration]
    table: str
    name: str
    field: FieldInfo
    default: Any
    optional: bool

    @property
    def path(self) -> str:
        """Its name with the tables'."""
        return f"{self.table.replace('[]', '')}.{self.name}".removeprefix(".")


def laid_over(content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay tables over tables, key by key."""
    merged = dict(content)
    for name, value in given.items():
        below = merged.get(name)
        merged[name] = laid_over(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def keys(
    table: type[Configuration], defaults: Configuration | None = None, name: str = "", *, optional: bool = False
) -> Iterator[Key]:
    """List the keys of a table and of those below it; its own come first. defaults: the table as it is by default."""
    fields = [
        (key, field, getattr(defaults, key) if defaults else field.get_default(call_default_factory=True))
        for key, field in table.model_fields.items()
    ]
    for key, field, default in fields:
        if not isinstance(default, Configuration):
            yield Key(table, name, key, field, default, optional)
    for key, field, default in fields:
        below = f"{name}.{key}".removeprefix(".")
        if isinstance(default, Configuration):
            yield from keys(type(default), default, below, optional=optional)
            continue
        several = "[]" if get_origin(_inner(field.annotation)) is tuple else ""
        for kind in _tables_in(field.annotation):
            yield from keys(kind, None, below + several, optional=True)


def as_toml(table: type[Configuration], title: str) -> str:
    """Write a configuration as TOML, every key with what it means and its default, commented out.

    The file as it is means the defaults. Keys that have none are written without a value.
    """
    lines = [f"# {title}"]
    before: tuple[type, str] = (table, "")
    for key in keys(table):
        if (key.kind, key.table) != before:
            before = key.kind, key.table
            header = f"[[{key.table[:-2]}]]" if key.table.endswith("[]") else f"[{key.table.replace('[]', '')}]"
            lines += ["", f"#{header}" if key.optional else header]
        value, meaning = _value(key.default), [*(key.field.description or "").split(), *_range(key.field)]
        is_table = not value and bool(_tables_in(key.field.annotation))
        meaning = [f"{key.name}, a table of its own:", *meaning] if is_table else meaning
        lines += ["", *textwrap.wrap(" ".join(meaning), _WIDTH, initial_indent="# ", subsequent_indent="# ")]
        lines += [] if is_table else [f"#{key.name} = {value}".rstrip()]
    return "\n".join(lines) + "\n"


def _inner(annotation: Any) -> Any:
    """An annotation without what is attached to it."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _tables_in(annotation: Any) -> list[type[Configuration]]:
    """List the tables that an annotation allows, such as both of `tuple[A | B, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Configuration):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]


def _range(field: FieldInfo) -> Iterator[str]:
    choices = [part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal]
    if choices:
        yield f"[{', '.join(map(str, get_args(choices[0])))}]"
    bounds = [
        f"{sign}{getattr(bound, name)}" for bound in field.metadata for name, sign in _BOUNDS if hasattr(bound, name)
    ]
    if bounds:
        yield f"[{', '.join(bounds)}]"


def _value(value: Any) -> str:
    """Write a value as TOML; nothing for one that is not there."""
    if isinstance(value, Configuration):
        return "{ " + ", ".join(f"{name} = {_value(getattr(value, name))}" for name in type(value).model_fields) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str | Path | bool):
        return json.dumps(value if isinstance(value, bool) else str(value), ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    return "{}" if value == {} else ""
