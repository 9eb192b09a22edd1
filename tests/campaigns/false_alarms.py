"""What learning false alarms does to other parts: `python -m tests.campaigns.false_alarms`.

A patch bank is fitted on a category at so high a rate of false alarms that there are some. Of every other good test
image, those that it rejects are learned as false alarms, at most `MOST`. The other half of the good images, of which
none was chosen by its score, and all defective ones are judged before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.cli.shell import jaxad

MOST = 20
FALSE_ALARM = 0.4


def linked(category: Path, folder: Path, good: Sequence[Path] | None = None) -> None:
    """A data set of one category below `folder`; with `good` in place of its good test images where they are given."""
    place = folder / category.name
    (place / "test").mkdir(parents=True)
    for name in ("train", "ground_truth"):
        os.symlink(category / name, place / name)
    for kind in sorted((category / "test").iterdir()):
        if kind.name != "good" or good is None:
            os.symlink(kind, place / "test" / kind.name)
    if good is not None:
        (place / "test/good").mkdir()
        for file in good:
            os.symlink(file, place / "test/good" / file.name)


def rejected(predictions: Path) -> set[str]:
    """Names of the images that are anomalous."""
    lines = map(json.loads, (predictions / "predictions.jsonl").read_text().splitlines())
    return {Path(line["file"]).name for line in lines if line["anomalous"]}


def campaign(category: Path, backbone: str, work: Path, *flags: str) -> dict[str, object]:
    """What `jaxad update --out` says after fit, with further flags, and predict, in the empty folder `work`."""
    category = category.resolve()
    linked(category, work / "all")
    new = work / "new"
    new.mkdir()
    fit = ("--preset", "small", "--model.backbone", backbone, "--false-alarm", FALSE_ALARM, *flags)
    jaxad("fit", "patch-bank", "--data", f"folder:{work / 'all'}", "--workdir", work / "run", *fit)
    named = ("--category", category.name)
    jaxad(
        "predict",
        category / "test/good",
        "--checkpoint",
        work / "run",
        "--out",
        work / "found",
        *named,
        "--save",
        "overlay",
    )
    good, alarms = sorted((category / "test/good").iterdir()), rejected(work / "found")
    for file in [file for file in good[::2] if file.name in alarms][:MOST]:
        shutil.copy(file, new / file.name)
    linked(category, work / "compared", good[1::2])
    how = ("--as", "false-alarm", "--test", f"folder:{work / 'compared'}", "--dry-run", "--out", work / "update.json")
    jaxad("update", "--checkpoint", work / "run", "--data", new, *named, *how)
    return json.loads((work / "update.json").read_text())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", type=Path, required=True, help="folder of a category in MVTec-AD layout")
    parser.add_argument("--backbone", required=True, help="folder of a ViT in Hugging Face layout")
    parser.add_argument("--work", type=Path, required=True, help="folder to make")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True)
    campaign(options.category, options.backbone, options.work)


if __name__ == "__main__":
    main()
