"""Which categories a folder holds; whether it holds any, or is one, is read off what its folders hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxad.data.layout.benchmarks import benchmark_of
from jaxad.data.layout.category import Category, is_flat, kept_note
from jaxad.data.layout.evidence import holds_masks
from jaxad.data.layout.fiftyone import is_export, read_export
from jaxad.data.layout.listing import Listing, chosen_categories, ordered
from jaxad.data.layout.tree import Folder, read_tree
from jaxad.data.layout.words import FOUND, Names, folded, word
from jaxad.errors import DataError, Problem
from jaxad.io.places import expanded
from jaxad.io.text import name_text


def scan(root: str | Path, categories: tuple[str, ...] | None = None, names: Names = FOUND) -> Listing:
    """Lists a folder that holds categories or is itself one, or an export of FiftyOne.

    Args:
        root: the folder.
        categories: names of the categories to list, as the file system or `jaxad.io.text` has them; None for all.
        names: what a user says of names of folders.

    Raises:
        DataError: the folder is missing, holds no category, lacks one of `categories` or of `names`, or may as well be
            one category as hold several.
    """
    root = expanded(root)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; give a folder in MVTec layout, e.g. folder:parts with parts/screw/train/good"
        )
    if is_export(root):
        return read_export(root, categories, names)
    tree = read_tree(root, names)
    _check_names(tree)
    folders, problems = _categories(tree)
    chosen = chosen_categories(root, categories, folders)
    folders = {name: folder for name, folder in folders.items() if name in chosen}
    train, validation, test = [], [], []
    regions = {name: folder.regions[0] for name, folder in folders.items() if folder.regions}
    for name, folder in folders.items():
        found = Category(root, name, folder)
        train += found.train
        validation += found.validation
        test += found.test
        problems += found.problems
        if len(folder.regions) > 1:
            files = " and ".join(file.name for file in folder.regions)
            problems.append(Problem("ambiguous region", str(folder.path), f"holds {files}; keep one of them"))
    if name := benchmark_of(tree):
        detail = (
            f"looks like the layout of a benchmark; {_prepare(name, root)} reads it with its official split and masks"
        )
        # Part of the message that stops a run, where its masks or folders are in the way.
        problems.append(Problem("benchmark", str(root), detail, fatal=any(problem.fatal for problem in problems)))
    return Listing(root, ordered(train), ordered(validation), ordered(test), tuple(problems), regions)


def _categories(tree: Folder) -> tuple[dict[str, Folder], list[Problem]]:
    """The categories by name, and notes on what lies beside them.

    A folder is one category where its folders are the parts of one (train/, test/, good/), and holds several where
    its folders are themselves made of such parts, whatever they are called: "ok" with train/ and test/ in it is a
    category. Where it is both, the reading that leaves nothing out counts, and if there is none, none.
    """
    with_images = [child for child in tree.folders if child.has_images()]
    parts = [child for child in with_images or tree.folders if _is_part(child)]
    whole = [child for child in tree.folders if child not in parts and _is_category(child)]
    whole = [child for child in whole if not (child.role.part == "masks" and (parts or _mirrors(child)))]
    if parts and whole and any(child.has_images() for child in whole):
        splits = {child.role.part for child in parts}
        if all(child.holds("normal") and not child.images for child in parts) and not {"train", "test"} <= splits:
            # "test" with good/ and cut/ in it, beside whole categories, is a category called test.
            whole, parts = [child for child in tree.folders if child in whole or child in parts], []
        elif any(_is_whole(child) for child in whole) or not {"train", "test"} <= splits:
            names = [", ".join(f"{child.name}/" for child in group) for group in (parts, whole)]
            raise DataError(
                f"{tree.path}: is it one category, with {names[0]}, or does it hold several, such as {names[1]}? Move "
                "one or the other into a folder of its own"
            )
    if parts:
        return {name_text(tree.path.resolve().name): tree}, []
    if not whole and is_flat(tree):
        # Photos and nothing else: what is not sorted is taken for good, and said to be.
        return {name_text(tree.path.resolve().name): tree}, []
    if not whole:
        raise DataError(_no_category(tree))
    problems = [found for child in tree.folders if child not in whole for found in _outside(child)]
    if tree.images:
        detail = f"{len(tree.images)} images beside the categories, in none of them"
        problems.append(Problem("ignored file", str(tree.path), detail, fatal=False))
    problems += _similar(child.path for child in whole)
    links = [Problem("dangling link", str(link), "leads to nothing; mend or remove it") for link in tree.dangling]
    kept = kept_note(Folder(tree.path, kept=tree.kept))
    return {name_text(child.name): child for child in whole}, [*problems, *links, *kept]


def _check_names(tree: Folder) -> None:
    """Raises DataError for names that a user gave and no folder has."""
    there = {word(folder.name): folder.name for folder in tree.walk() if folder is not tree}
    given = tree.names._asdict()
    missing = [f"{which} = {name}" for which, names in given.items() for name in sorted(names) if name not in there]
    if missing:
        shown = ", ".join(sorted(there.values())[:20])
        raise DataError(f"{tree.path}: no folder of that name: {', '.join(missing)}; there are {shown or 'no folders'}")


def _is_part(folder: Folder) -> bool:
    """Whether a folder is named like a part of a category and does not hold whole ones."""
    part = folder.role.part
    if part == "normal":
        return not _is_category(folder)
    return part in ("train", "validation", "test") and not _is_whole(folder)


def _is_category(folder: Folder) -> bool:
    return _is_whole(folder) or folder.holds("normal", "train", "test")


def _is_whole(folder: Folder) -> bool:
    """Whether a folder is divided into train/ and test/, or has one of them."""
    return any(child.split in ("train", "test") for child in folder.folders)


def _mirrors(folder: Folder) -> bool:
    """Whether a folder holds masks in the folders of their images, which looks like a category."""
    return holds_masks(Folder(folder.path, [child for child in folder.folders if child.role.part != "masks"]))


def _outside(folder: Folder) -> list[Problem]:
    if not folder.has_files():
        return [Problem("empty category", str(folder.path), "holds no file; fill or remove it", fatal=True)]
    if not folder.has_images():
        return kept_note(folder)
    masks = folder.role.part == "masks"
    deeper = ", ".join(f"{child.name}/" for child in folder.folders if _is_category(child))
    detail = "holds images but no train/, test/ or good/"
    if masks:
        detail = "masks beside the categories are not read; move them into <category>/ground_truth/<defect>"
    elif deeper:
        detail = f"holds categories one level deeper: {deeper}; move them beside the others"
    return [Problem("ignored folder", str(folder.path), detail, fatal=False)]


def _similar(paths: Iterable[Path]) -> Iterator[Problem]:
    """Categories whose names differ in case or in the composition of accents alone."""
    known: dict[str, Path] = {}
    for path in paths:
        if (other := known.setdefault(folded(path.name), path)) is not path:
            detail = f"reads like {other.name}, but is another category; rename or join them"
            yield Problem("similar category", str(path), detail, fatal=False)


def _no_category(tree: Folder) -> str:
    """Why there is none, and what to do."""
    text = (
        f"{tree.path}: holds no category; needs category/train/good, category/test or category/good with images in them"
    )
    if name := benchmark_of(tree):
        return f"{text}. It looks like the layout of a benchmark: {_prepare(name, tree.path)} reads it"
    inner = [child.name for child in tree.folders if any(_is_category(below) for below in child.folders)]
    if inner:
        return f"{text}. {inner[0]}/ holds some: give folder:{tree.path / inner[0]}"
    if tree.images:
        return f"{text}. Its {len(tree.images)} images lie in no folder: move the normal ones into good/"
    if others := sorted({file.suffix for folder in tree.walk() for file in folder.others if file.suffix}):
        return f"{text}. There are files {', '.join(others)}, which are no images by their extension"
    return text


def _prepare(name: str, root: Path) -> str:
    return f"`jaxad prepare {name} --source {root}`"
