"""Command-line options made from settings, one per field: flags, environment and help cannot differ."""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings


def add_setting_options(parser: argparse.ArgumentParser, settings: type[BaseSettings]) -> None:
    """Declare --field-name for every field. What is not given comes from the environment, then from the default."""
    prefix = settings.model_config.get("env_prefix", "")
    group = parser.add_argument_group(f"{settings.__name__} (environment: {prefix}<FIELD>)")
    for name, field in settings.model_fields.items():
        default = (
            ""
            if field.is_required() or field.default is None or field.default_factory
            else f" (default: {field.default})"
        )
        # A switch needs no value.
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=" ".join(f"{field.description or ''}".split()).replace("%", "%%") + default,
            **switch,
        )


def read_settings(settings: type[BaseSettings], args: argparse.Namespace, **given: Any) -> Any:
    """Build settings from the options given, `given`, and the environment. Raises SystemExit naming what is wrong."""
    options = {name: getattr(args, name) for name in settings.model_fields if hasattr(args, name)}
    try:
        return settings(**{**given, **options})
    except ValidationError as error:
        lines = []
        for wrong in error.errors():
            # Our own validators say what they found by themselves, and of several fields which.
            said = wrong["msg"].removeprefix("Value error, ")
            if wrong["type"] == "missing":
                said = "not given"
            elif said == wrong["msg"]:
                said = f"found {wrong['input']!r}: {said}"
            lines.append("".join(f"--{field}: ".replace("_", "-") for field in wrong["loc"]) + said)
        raise SystemExit("\n".join(lines)) from error
