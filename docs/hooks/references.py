"""The pages of reference: Python names, commands and settings, each made from the code when the site is built."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import itertools
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from mkdocs.structure.files import File

COLUMNS = "80"
"""Width of the commands' help."""


def on_files(files, config):
    """Called by mkdocs: adds the pages."""
    for name, content in (("python", python_names()), ("commands", commands()), ("settings", settings())):
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def python_names() -> str:
    """All public names of `jaxad`, documented from their docstrings where they are defined."""
    import jaxad

    head = "# Python\n\nEverything here is an attribute of `jaxad`, imported when it is first used.\n"
    table = ast.parse(Path(jaxad.__file__).with_name("__init__.pyi").read_text("utf-8"))
    imports = [node for node in table.body if isinstance(node, ast.ImportFrom)]
    places = {alias.name: node.module for node in imports for alias in node.names if alias.name[0] != "_"}
    sections = [f"::: jaxad.{places[name]}.{name}" for name in sorted(places, key=str.lower) if places[name]]
    data = "## jaxad.data\n\n::: jaxad.data\n    options:\n      show_root_heading: false\n      members: false\n"
    members = [f"::: {home}" for home in map(_data_home, importlib.import_module("jaxad.data").__all__) if home]
    return "\n\n".join([head, *sections, data, *members]) + "\n"


def commands() -> str:
    """The help of every command and subcommand, as the command line prints it."""
    parts = ["# Commands", "What `jaxad COMMAND --help-all` prints; `--help` leaves the rarer flags out."]
    for words in _all_commands([]):
        title = " ".join(["jaxad", *words])
        parts.append(f"{'##' if len(words) < 2 else '###'} {title}\n\n```text\n{_help(words).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def settings() -> str:
    """Every field of every config: default, meaning, where it comes from and why."""
    from jaxad import config

    parts = [
        "# Settings",
        "The fields of the config dataclasses; on the command line `--model.FIELD` and `--train.FIELD`.",
    ]
    for name in sorted(vars(config)):
        cls = getattr(config, name)
        if isinstance(cls, type) and dataclasses.is_dataclass(cls) and dataclasses.fields(cls):
            parts += [f"## {name}", (cls.__doc__ or "").split("\n\n")[0].replace("\n", " "), _fields(cls)]
    return "\n\n".join(parts) + "\n"


def _data_home(name: str) -> str | None:
    value = getattr(importlib.import_module("jaxad.data"), name)
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else None


def _help(words: list[str]) -> str:
    from jaxad import cli

    os.environ["COLUMNS"] = COLUMNS
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.parse([*words, "--help-all"])
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def _all_commands(words: list[str]) -> Iterator[list[str]]:
    """Every command, depth first, found in the helps themselves."""
    yield words
    found = re.match(r"usage: jaxad[\w\s-]*\{([^}]*)\}\s+\.\.\.", _help(words))
    if found:
        for name in re.split(r",\s*", found[1]):
            yield from _all_commands([*words, name.strip()])


def _fields(cls: type) -> str:
    """A table of a dataclass's fields."""
    texts = _docstrings(cls)
    rows = ["| field | default | meaning | from | why |", "|---|---|---|---|---|"]
    for item in dataclasses.fields(cls):
        cells = (
            f"`{item.name}`",
            f"`{_default(item)}`",
            texts.get(item.name, ""),
            str(item.metadata.get("source", "")),
            _why(item.metadata),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows)


def _why(metadata: Mapping[str, str]) -> str:
    """The reason of a field, and a link to the paragraph that says more."""
    more = f"[More](../decisions.md#{metadata['decision']})." if metadata.get("decision") else ""
    return f"{metadata.get('reason', '')} {more}".strip()


def _default(item: dataclasses.Field) -> str:
    if item.default is not dataclasses.MISSING:
        return repr(item.default)
    return repr(item.default_factory()) if item.default_factory is not dataclasses.MISSING else "required"


def _docstrings(cls: type) -> dict[str, str]:
    """The string below each field of a dataclass, also of those that it inherits."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                texts[field.target.id] = inspect.cleandoc(text.value.value).replace("\n", " ")  # type: ignore[union-attr]
    return texts
