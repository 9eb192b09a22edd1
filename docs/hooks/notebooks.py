"""A page for each notebook of docs/notebooks: its text and its code, without output, which running it makes."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.structure.files import File


def on_files(files, config):
    """Called by mkdocs: adds the pages."""
    for notebook in sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=page(notebook)))
    return files


def page(notebook: Path) -> str:
    """The notebook in Markdown."""
    parts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    where = f"*Made from `docs/notebooks/{notebook.name}`, which runs in under a minute on a CPU.*"
    return "\n\n".join([parts[0], where, *parts[1:]]) + "\n"
