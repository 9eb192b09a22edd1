"""Real-IAD: 30 kinds of parts, five views of each object, labels for each view.

realiad_{256,512,1024,raw}/<category>/OK/S0001/<category>_0001_OK_C{1..5}_<time>.jpg
realiad_{256,512,1024,raw}/<category>/NG/<code>/S0001/<category>_0001_NG_<code>_C{1..5}_<time>.jpg, masks .png
realiad_jsons[/realiad_jsons]/<category>.json                          the standard protocol, all views
realiad_jsons[/realiad_jsons]_sv/<category>.json                       view C1 alone
realiad_jsons[/realiad_jsons]_fuiad_{0.0,0.1,0.2,0.4}/<category>.json  defective images among those for training

The tree of VLMDiff's authors has the images in real_iad/ and the lists in real_iad_jsons[/realiad_jsons]/.
"""

from __future__ import annotations

from pathlib import Path

from tfds_builders.listing import Benchmark, Counts, Option, Sample
from tfds_builders.real_iad.lists import Rules, find_folder, samples

CATEGORIES = (
    "audiojack",
    "bottle_cap",
    "button_battery",
    "end_cap",
    "eraser",
    "fire_hood",
    "mint",
    "mounts",
    "pcb",
    "phone_battery",
    "plastic_nut",
    "plastic_plug",
    "porcelain_doll",
    "regulator",
    "rolled_strip_base",
    "sim_card_set",
    "switch",
    "tape",
    "terminalblock",
    "toothbrush",
    "toy",
    "toy_brick",
    "transistor1",
    "u_block",
    "usb",
    "usb_adaptor",
    "vcpill",
    "wooden_beads",
    "woodstick",
    "zipper",
)

RESOLUTION = Option("resolution", ("px1024", "px512", "px256", "raw"), "which of the official sizes of the images")
IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")
"""Folders of the images, one for each size."""
ANY_SIZE, ITS_LISTS = "real_iad", "real_iad_jsons"
"""Where VLMDiff's code has the images, of whichever size, and the lists."""
PROTOCOL = Option(
    "protocol",
    ("multi_view", "single_view", "noisy_0", "noisy_10", "noisy_20", "noisy_40"),
    "all views; view C1 alone; or training with 0, 10, 20 or 40 % of defective images (FUIAD)",
)
LISTS = {
    "multi_view": "realiad_jsons",
    "single_view": "realiad_jsons_sv",
    "noisy_0": "realiad_jsons_fuiad_0.0",
    "noisy_10": "realiad_jsons_fuiad_0.1",
    "noisy_20": "realiad_jsons_fuiad_0.2",
    "noisy_40": "realiad_jsons_fuiad_0.4",
}
"""Folder of a protocol's lists, in `realiad_jsons/` (as the archive nests them), `real_iad_jsons/` or beside them.
Those of the standard protocol may also lie in `real_iad_jsons/` itself."""


def list_samples(root: Path, category: str, *, resolution: str, protocol: str) -> list[Sample]:
    """The images of a category by its official list, see `tfds_builders.real_iad.lists.samples`."""
    images = _images(root, resolution)
    lists = find_folder(root, _list_folders(protocol), f"the lists of protocol {protocol}")
    return samples(lists / f"{category}.json", images, category, Rules(noisy_training=protocol.startswith("noisy")))


def is_root(folder: Path) -> bool:
    """Whether a folder holds Real-IAD's images of some size and lists of some protocol."""
    lists = [folder / name for protocol in LISTS for name in _list_folders(protocol)]
    return any(any(path.glob("*.json")) for path in lists) and any(
        (folder / name).is_dir() for name in (*IMAGES, ANY_SIZE)
    )


def category_of(archive: Path) -> str | None:
    """The category of an archive of images, which is named after it."""
    return archive.stem if archive.parent.name in (*IMAGES, ANY_SIZE) else None


def totals(*, resolution: str, protocol: str) -> Counts:
    """Official numbers of images; known for the standard protocol alone."""
    if protocol != "multi_view":
        return {}
    return {("train", 0): 36_465, ("test", 0): 63_256, ("test", 1): 51_329}


def _list_folders(protocol: str) -> list[str]:
    own = LISTS[protocol]
    return [f"realiad_jsons/{own}", f"{ITS_LISTS}/{own}", own, *([ITS_LISTS] if protocol == "multi_view" else [])]


def _images(root: Path, resolution: str) -> Path:
    """The folder of the images at a resolution; one that does not say its own is taken for any."""
    size = resolution.removeprefix("px")
    others = [name.removeprefix("realiad_") for name in IMAGES if (root / name).is_dir() and not name.endswith(size)]
    options = [f"--options resolution={'' if other == 'raw' else 'px'}{other}" for other in others]
    there = f"; there are those of {' and '.join(others)}: {' or '.join(options)}" if others else ""
    return find_folder(root, [f"realiad_{size}", ANY_SIZE], f"the images at size {size}{there}")


BENCHMARK = Benchmark(
    name="real_iad",
    title="Real-IAD",
    homepage="https://realiad4ad.github.io/Real-IAD/",
    license="CC BY-NC-SA 4.0; access on request, for research",
    how_to_obtain=(
        "Ask for access at huggingface.co/datasets/Real-IAD/Real-IAD. Get realiad_jsons and the images of one size "
        "(realiad_1024, realiad_512, realiad_256 or realiad_raw, an archive for each category) into one folder and "
        "give that folder as source."
    ),
    is_root=is_root,
    list_samples=list_samples,
    categories=CATEGORIES,
    totals=totals,
    options=(RESOLUTION, PROTOCOL),
    category_of=category_of,
)
