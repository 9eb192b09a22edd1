"""The model card of a run, README.md in its folder: what it was fitted on, how it decides, what it is not for.

It is in the form of the Hugging Face hub, YAML before Markdown, and made of what the run records alone: the same run
has the same card wherever it lies, and no path of the machine that it was fitted on stands in it. Whatever fits,
updates or chooses a threshold writes it again; what a user has written below `YOURS` stays, and a README.md without
that line is the user's.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxad.inference.steps import FOLDER
from jaxad.inference.threshold import POOLED, rate_text
from jaxad.io.atomic import write_whole
from jaxad.io.text import visible
from jaxad.models.known_licenses import license_of

if TYPE_CHECKING:
    from jaxad.inference.rechoose import Decided

CARD = "README.md"
YOURS = "<!-- jaxad writes what stands above this line anew whenever the run changes; what stands below is yours. -->"
_LICENSE = 1000
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_WEIGHT_FILES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors", ".msgpack", ".zip")
_RUN = "jaxad predict IMAGE_OR_FOLDER --checkpoint . --out predictions"


def run_of(step: Path) -> Path | None:
    """The run that a step's folder lies in, None where it lies alone."""
    return step.parents[1] if step.parent.name == FOLDER else None


def write_card(decided: Decided, out: Path | None, *, use: str = _RUN) -> bool:
    """Writes the card of a run at its end, unless it is there already or somebody else's file is in its place.

    Args:
        decided: the end of the run.
        out: folder of the card; None for none.
        use: command that judges images, run in that folder.

    Returns:
        Whether the card is there now.

    Raises:
        OSError: the disk is full or fails.
    """
    if out is None:
        return False
    file, own = out / CARD, ""
    there = file.read_text("utf-8", "replace") if file.is_file() else None
    if there is not None:
        _, line, own = there.partition(YOURS)
        if not line:
            return False
    text = f"{card(decided, use=use)}\n{YOURS}{own or chr(10)}"
    if text != there:
        write_whole(file, text)
    return True


def card(decided: Decided, *, use: str = _RUN) -> str:
    """The card's text, as Markdown after YAML.

    Args:
        decided: the end of the run.
        use: command that judges images with it.
    """
    meta = decided.step.meta
    parts = {
        "": _head(meta),
        "Use": f"```bash\n{use}\n```",
        "Fitted on": _list(_data(meta)),
        "Decision": _decision(decided),
        "Not for": _list(_limits(decided)),
        "Licenses": _list(_licenses(meta)),
        "Made by": _made(meta),
    }
    sections = [f"## {title}\n\n{text}" if title else text for title, text in parts.items()]
    return "\n\n".join([_front(meta), *sections]) + "\n"


def public(source: str) -> str:
    """What names images or weights, without the folders of the machine that they lie on.

    "folder:/home/me/parts" becomes "folder:parts"; ids of the hub, which have one slash, stay.
    """
    kind, colon, place = source.partition(":")
    if not colon or len(kind) < 2 or "/" in kind:
        kind, colon, place = "", "", source
    plain = place.replace("\\", "/").rstrip("/")
    local = plain[:1] in ("/", ".", "~") or plain.count("/") > 1 or PureWindowsPath(place).drive
    if kind in ("folder", "csv") or local:
        place = plain.rpartition("/")[2]
    return visible(f"{kind}{colon}{place}")


def hub_id(source: str) -> str | None:
    """ORG/NAME of weights that are the Hugging Face hub's, None of all others.

    A folder or file of this machine may have such a name as well. What came from the hub is recorded with its commit;
    without one, jaxad must know the network.
    """
    name, _, revision = source.partition("@")
    if _ID.fullmatch(name) is None:
        return None
    known = license_of(name) is not None and not name.lower().endswith(_WEIGHT_FILES)
    return name if known or _COMMIT.fullmatch(revision) else None


def _front(meta: Mapping[str, Any]) -> str:
    networks = list(dict.fromkeys(name for name in map(hub_id, _sources(meta)) if name is not None))
    lines = [
        "library_name: jaxad",
        "license: other",
        "license_name: see-licenses-below",
        *_yaml_list("tags", ("anomaly-detection", "visual-inspection", "jax", meta["system"])),
        *(_yaml_list("base_model", networks) if networks else ()),
    ]
    return "\n".join(["---", *lines, "---"])


def _yaml_list(name: str, values: Sequence[str]) -> list[str]:
    # A string of JSON is one of YAML.
    return [f"{name}:", *(f"- {json.dumps(value)}" for value in values)]


def _sources(meta: Mapping[str, Any]) -> list[str]:
    """Where the pretrained networks are from: some detectors have several, as `clip=ID,diffusion=ID`.

    Weights that settings name besides, from which training began, are among them.
    """
    record, config = meta.get("pretrained"), meta["config"]
    sources = [] if record is None else [part.rpartition("=")[2] for part in record["id"].split(",")]
    named = [name for name in meta.get("weights") or {} if not name.endswith("tokenizer")]
    sources += [config[name] for name in named if isinstance(config.get(name), str)]
    return [source for source in sources if source]


def _networks(meta: Mapping[str, Any]) -> list[str]:
    """The pretrained networks by their public names."""
    return list(dict.fromkeys(map(public, _sources(meta))))


def _head(meta: Mapping[str, Any]) -> str:
    categories = ", ".join(_cell(visible(name)) for name in meta["categories"]) or "any"
    networks = "".join(f", on {' and '.join(f'`{name}`' for name in names)}" for names in [_networks(meta)] if names)
    hashes = (meta.get("pretrained") or {}).get("sha256")
    weights = f"\n\nSHA-256 of the pretrained weights: `{visible(hashes)}`" if hashes else ""
    return (
        f"# {meta['system']}: visual anomaly detector\n\n"
        f"A `{meta['system']}` of jaxad{networks}. It gives an image a score, and each "
        f"of its pixels, that are higher the less the image looks like the normal ones it was fitted on.\n\n"
        f"Categories ({len(meta['categories'])}): {categories}{weights}"
    )


def _data(meta: Mapping[str, Any]) -> list[str]:
    data, train = meta.get("data") or {}, meta.get("train") or {}
    hashes = data.get("sha256") if isinstance(data.get("sha256"), dict) else {}
    lines = [f"{data.get('images', 'unknown')} normal images of `{_source(data)}`"]
    lines += [f"SHA-256 of the pixels, {part}: `{value}`" for part, value in (hashes or {}).items()]
    if train:
        lines.append(f"{meta['step']:,} steps of {train.get('batch_size')} images, seed {train.get('seed')}")
    for one in data.get("origins", ())[1:]:
        lines.append(f"an update with normal images of `{public(str(one.get('source')))}`: `{one.get('sha256')}`")
    if meta.get("tiling"):
        lines.append(f"cut into tiles of {meta['tiling']['side']} pixels")
    if meta.get("regions"):
        lines.append("judged in a region of the images alone: " + ", ".join(name or "all" for name in meta["regions"]))
    return lines


def _source(data: Mapping[str, Any]) -> str:
    """The images by their public name, as `--data` takes it."""
    return public(str(data.get("data") or data.get("source") or "SRC").removesuffix("/train"))


def _decision(decided: Decided) -> str:
    rule, scores, meta = decided.threshold, decided.holdout, decided.step.meta
    if rule is None:
        return "No threshold was chosen, as no normal images were held out: scores can be compared, not decided upon."
    head = (
        "hold-out images", "mean score", "deviation", "highest", "threshold", "above it", "false alarms"
    )  # fmt: skip
    rows = [f"| category | {' | '.join(head)} |", f"|---|{'--:|' * len(head)}"]
    for name, limits in rule.limits.items():
        title = _cell(visible(name)) if name != POOLED else "*all together*"
        chosen = None if scores is None else [name in (POOLED, category) for category in scores.categories]
        own = np.zeros(0) if scores is None or chosen is None else scores.scores[np.array(chosen)]
        figures = (own.mean(), own.std(), own.max()) if len(own) else (None, None, None)
        told = [_number(value) for value in (*figures, limits.image)]
        above = "" if limits.above is None else str(limits.above)
        rate = rate_text(rule.asked(name), rule.supported(name), limits.normals)
        rows.append(f"| {title} | {limits.normals} | {' | '.join(told)} | {above} | {rate} |")
    return (
        f"An image whose score is above the threshold of its category is anomalous. Thresholds were measured under the "
        f"protocol `{rule.protocol}`, on normal images that were held out of the fit of step {meta['step']}; the last "
        "column is the share of normal images that pass them.\n\n" + "\n".join(rows)
    )


def _limits(decided: Decided) -> list[str]:
    lines = [
        "parts, cameras, lighting or resolutions other than those of the images it was fitted on: fit anew, or update, "
        "and watch its scores with `jaxad drift`",
        "a promise that defects are found: it has seen normal images alone, and the figures above are of such; `jaxad "
        "evaluate` measures misses on labeled ones",
        "the only safeguard where a missed defect can hurt somebody, and diagnoses or decisions about people",
    ]
    if any(name.startswith("random") for name in _networks(decided.step.meta)):
        lines.append("anything but trying the software: its pretrained network has random weights")
    return lines


def _licenses(meta: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in _networks(meta):
        known = "none, random weights" if name.startswith("random") else license_of(name)
        lines.append(f"pretrained weights `{name}`: {known or 'not known to jaxad; see where they come from'}")
    stated = visible(" ".join(str((meta.get("data") or {}).get("license") or "").split()))
    short = stated if len(stated) <= _LICENSE else f"{stated[:_LICENSE]} ..."
    lines.append(f"images: {_cell(short) or 'no license was found with them'}")
    return [*lines, "what was learned from them may be bound by these; jaxad itself is Apache-2.0"]


def _made(meta: Mapping[str, Any]) -> str:
    found, data = meta.get("versions") or {"jaxad": meta["jaxad"]}, meta.get("data") or {}
    return (
        f"{', '.join(f'{name} {version}' for name, version in found.items())}\n\n"
        "The same run again, with the `config.json` that it has written:\n\n"
        f"```bash\njaxad fit --config config.json --data {shlex.quote(_source(data))} --workdir NEW_FOLDER\n```"
    )


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _cell(text: str) -> str:
    """Text that neither ends a cell of a table nor is markup."""
    for character in "\\|*_`<[":
        text = text.replace(character, f"\\{character}")
    return text
