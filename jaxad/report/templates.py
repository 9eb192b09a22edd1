"""HTML pages from the templates that lie beside the code."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

import jinja2


def rendered(
    package: str,
    file: str,
    values: Mapping[str, Any],
    *,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    globals: Mapping[str, Any] | None = None,
) -> str:
    """A page; what stands in it of values is escaped.

    Args:
        package: in which the template lies.
        file: its name.
        values: by the names that it has for them.
        filters: further ones, by name.
        globals: values that its macros see too.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= dict(filters or {})
    template = importlib.resources.files(package).joinpath(file).read_text("utf-8")
    return environment.from_string(template, dict(globals or {})).render(values)
