"""Pages that lie in the root of the repository, where visitors of the repository look for them."""

from __future__ import annotations

from pathlib import Path

from mkdocs.structure.files import File

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md", "SECURITY.md": "security.md"}


def on_files(files, config):
    """Called by mkdocs: adds the pages, with links as seen from docs/."""
    root = Path(config.docs_dir).parent
    for name, page in PAGES.items():
        text = (root / name).read_text().replace("](docs/", "](")
        for other, target in PAGES.items():
            text = text.replace(f"]({other})", f"]({target})")
        files.append(File.generated(config, page, content=text))
    return files
