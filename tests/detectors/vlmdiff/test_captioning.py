"""Captioning with a made-up captioner: prompts, resuming, what does not mix."""

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from experiments.vlmdiff.rows import COCO_SPLITS
from jaxad.data.captions.attach import Captions
from jaxad.detectors.vlmdiff.captioning import (
    PROMPTS,
    caption,
    data_name,
    model_name,
    prompt_name,
    prompt_text,
    published_prompt,
    shard_bounds,
)
from jaxad.errors import ConfigError, DataError
from jaxad.io.locks import LOCK, locked
from jaxad.io.progress import Reporter
from jaxad.models.captioner.hugging_face import HuggingFaceCaptioner


class Counting(Reporter):
    """Keeps how many images a bar is over, and how many were added to it at once."""

    def __init__(self):
        super().__init__(quiet=True)
        self.total, self.counted = 0, []

    @contextmanager
    def images(self, what, total, **_):
        self.total = total
        yield self.counted.append


class Fake:
    """Describes an image by its size and brightness, and fails after a number of batches."""

    def __init__(self, fails_after=None):
        self.batches, self.made, self.fails_after = [], 0, fails_after

    def __call__(self):
        self.made += 1
        return self.describe

    def describe(self, images):
        if len(self.batches) == self.fails_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return [f"{image.shape[1]} x {image.shape[0]}, mean {image.mean():.3f}" for image in images]


def settings(tmp_path, **changes):
    return {"out_dir": tmp_path, "data": "folder:/my/parts", "model": "org/Some_VLM-8B", "prompt": "pd", **changes}


def test_every_image_has_the_caption_of_its_pixels(parts, tmp_path):
    fake, reporter = Fake(), Counting()
    found = caption(parts.train, fake, batch_size=4, reporter=reporter, **settings(tmp_path))
    assert found.folder == tmp_path / "parts_captions_some-vlm-8b_pd"
    assert fake.batches == [4, 4, 4, 2]
    assert sum(reporter.counted) == reporter.total == len(parts.train) == 14
    means = [parts.train[index].image.mean() for index in range(len(parts.train))]
    assert found.captions.texts == tuple(f"56 x 56, mean {mean:.3f}" for mean in means)
    labels = json.loads((found.folder / "train_labels_parts_some-vlm-8b.json").read_text())
    assert labels == [record.identity for record in parts.train.records]
    assert found.empty == ()


def test_goes_on_where_it_stopped(parts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        caption(parts.train, Fake(fails_after=2), batch_size=4, **settings(tmp_path))
    rest = Fake()
    resumed = caption(parts.train, rest, batch_size=4, **settings(tmp_path))
    assert rest.batches == [4, 2]
    whole = caption(parts.train, Fake(), batch_size=4, **settings(tmp_path / "other"))
    assert resumed.captions.texts == whole.captions.texts
    finished = Fake()
    caption(parts.train, finished, **settings(tmp_path))
    assert finished.made == 0


def test_captions_made_otherwise_do_not_mix(parts, tmp_path):
    first = settings(tmp_path, prompt="What is this?")
    caption(parts.train, Fake(), **first)
    with pytest.raises(DataError, match=r"max_new_tokens: 1024 there, 9 now"):
        caption(parts.train, Fake(), max_new_tokens=9, **first)
    with pytest.raises(DataError, match=r"model: 'org/Some_VLM-8B' there, 'other/some_vlm-8b' now"):
        caption(parts.train, Fake(), **{**first, "model": "other/some_vlm-8b"})
    other = caption(parts.train, Fake(), **{**first, "prompt": "Whose is this?"})
    assert other.folder.parent == tmp_path
    assert len(list(tmp_path.iterdir())) == 2


def test_settings_are_claimed_by_one_process_at_a_time(parts, tmp_path):
    folder = caption(parts.train, Fake(), **settings(tmp_path)).folder
    # Another split is being captioned: that is no reason to wait.
    with held_by_another(folder / ".test-0-of-1.lock"):
        caption(parts.train, Fake(), **settings(tmp_path))
    with held_by_another(folder / LOCK), pytest.raises(ConfigError, match="out_dir"):
        caption(parts.train, Fake(), **settings(tmp_path))


@contextmanager
def held_by_another(lock):
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        pool.submit(stack.enter_context, locked(lock, "another")).result()
        yield
        pool.submit(stack.pop_all().close).result()


def test_a_captioner_that_loses_images_is_refused(parts, tmp_path):
    with pytest.raises(DataError, match="1 captions for 8 images"):
        caption(parts.train, lambda: lambda images: ["one"], **settings(tmp_path))


def test_what_has_come_to_a_data_set_is_described_and_nothing_else(parts, tmp_path):
    """As where another split of COCO-AD is prepared later."""
    caption(parts.train.select(range(3, 8)), Fake(), **settings(tmp_path))
    rest, reporter = Fake(), Counting()
    grown = caption(parts.train, rest, batch_size=4, reporter=reporter, **settings(tmp_path))
    assert rest.batches == [4, 4, 1]
    assert sum(reporter.counted) == reporter.total == 9
    whole = caption(parts.train, Fake(), **settings(tmp_path / "other"))
    assert grown.captions == dataclasses.replace(whole.captions, source=grown.captions.source)
    none = Fake()
    assert len(caption(parts.train.select(range(5)), none, **settings(tmp_path)).captions) == 5
    assert none.made == 0
    assert len(Captions.load(grown.folder)) == 14


def test_captions_that_do_not_say_how_they_were_made_are_left_alone(parts, tmp_path):
    folder = caption(parts.train, Fake(), **settings(tmp_path)).folder
    (folder / "captioner.json").unlink()
    with pytest.raises(DataError, match=r"no captioner\.json"):
        caption(parts.test, Fake(), split="test", **settings(tmp_path))


def test_empty_captions_are_named(parts, tmp_path):
    def describe(images):
        return ["" if image is images[1] else "text" for image in images]

    found = caption(parts.train, lambda: describe, batch_size=20, **settings(tmp_path))
    assert found.empty == (parts.train.records[1].identity,)


def test_test_images_lie_beside_those_of_training(parts, tmp_path):
    caption(parts.train, Fake(), **settings(tmp_path))
    found = caption(parts.test, Fake(), split="test", **settings(tmp_path))
    assert len(found.captions) == len(parts.test)
    assert len(list(found.folder.glob("*_captions_*.json"))) == 2


def test_prompts_are_the_published_ones():
    """The authors' folders and files."""
    assert PROMPTS["pd"] == (
        "Describe the visual features of image in detail with a focus on the main object, with around 60 words and "
        "maybe 4 or 5 sentences."
    )
    assert PROMPTS["pa"] == (
        "Be a pixel level visual defect inspector, and describe whether there is a defect or not on the main object "
        "itself, with around 60 words and maybe 4 or 5 sentences."
    )
    assert PROMPTS["coco"] == (
        "Describe the visual features of image in detail, with around 60 words and maybe 4 or 5 sentences."
    )
    assert prompt_text("pa") == PROMPTS["pa"]
    assert prompt_text("Why?") == "Why?"
    assert prompt_name(PROMPTS["pd"]) == prompt_name("pd") == "pd"
    assert prompt_name("Why?").startswith("text-")


def test_names_of_folders():
    assert model_name("OpenGVLab/InternVL3-8B-hf") == "internvl3-8b-hf"
    assert model_name("/models/blip2_1_2") == "blip2-1-2"
    assert data_name("folder:/data/my parts/") == "my parts"
    assert data_name("mvtec_ad/bottle") == "mvtec_ad_bottle"
    assert {data_name(split) for split in COCO_SPLITS} == {"coco_ad"}
    assert [published_prompt(data) for data in (*COCO_SPLITS, "visa", "folder:coco_ad")] == ["coco"] * 4 + ["pd"] * 2
    assert data_name("mvtec_ad", ("bottle",)) == "mvtec_ad_bottle"
    assert data_name("mvtec_ad", ("cable", "bottle")) == "mvtec_ad_bottle-cable"
    many = [data_name("mvtec_ad", [f"category{number}" for number in range(first, 15)]) for first in range(2)]
    assert many[0].startswith("mvtec_ad_15-categories-")
    assert many[0] != many[1]


def test_shards_are_whole_batches():
    assert shard_bounds(14, 4, 2) == (0, 8, 14)
    assert shard_bounds(14, 4, 1) == (0, 14)
    assert shard_bounds(0, 4, 1) == (0, 0)
    assert shard_bounds(9, 2, 3) == (0, 2, 6, 9)
    assert shard_bounds(5, 4, 3) == (0, 0, 4, 5)


def test_shards_are_described_beside_each_other_and_joined_by_the_last(parts, tmp_path):
    whole = caption(parts.train, Fake(), batch_size=4, **settings(tmp_path / "one"))
    second, reporter = Fake(), Counting()
    options = {"batch_size": 4, **settings(tmp_path / "two")}
    found = caption(parts.train, second, shard=(1, 2), reporter=reporter, **options)
    assert (second.batches, sum(reporter.counted), found.captions) == ([4, 2], 6, None)
    first = Fake()
    with held_by_another(found.folder / ".train-1-of-2.lock"):
        found = caption(parts.train, first, shard=(0, 2), **options)
    assert first.batches == [4, 4]
    assert found.captions.texts == whole.captions.texts
    assert sorted(file.name for file in found.folder.iterdir()) == sorted(file.name for file in whole.folder.iterdir())
    with pytest.raises(DataError, match="captions made otherwise"):
        caption(parts.train, first, shard=(0, 2), **{**options, "prompt": PROMPTS["pd"], "model": "other/some_vlm-8b"})


def test_shards_of_another_number_keep_what_was_described(parts, tmp_path):
    """But not while those of the first number are at work."""
    options = {"batch_size": 4, **settings(tmp_path)}
    folder = caption(parts.train, Fake(), shard=(1, 2), **options).folder
    with held_by_another(folder / ".train-0-of-2.lock"), pytest.raises(ConfigError, match="out_dir"):
        caption(parts.train, Fake(), shard=(0, 4), **options)
    batches = []
    for number in range(4):
        fake = Fake()
        found = caption(parts.train, fake, shard=(number, 4), **options)
        batches.append(fake.batches)
    assert batches == [[], [4], [], [4]]
    assert len(found.captions) == 14


def test_a_batch_that_was_interrupted_is_described_whole_again(parts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        caption(parts.train, Fake(fails_after=2), batch_size=4, **settings(tmp_path))
    journal = next(tmp_path.rglob("*.journal"))
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:6]))
    rest, reporter = Fake(), Counting()
    found = caption(parts.train, rest, batch_size=4, reporter=reporter, **settings(tmp_path))
    assert rest.batches == [4, 4, 2]
    assert reporter.counted == [6, 2, 4, 2]
    whole = caption(parts.train, Fake(), batch_size=4, **settings(tmp_path / "other"))
    assert found.captions.texts == whole.captions.texts


def test_image_numbers_as_labels(parts, tmp_path):
    """COCO's labels are numbers; all splits have one folder, and that of another captioner's run serves any of them."""
    records = tuple(
        dataclasses.replace(record, identity=f"train2017/{number:012d}.jpg")
        for number, record in enumerate(parts.train.records)
    )
    source = parts.train.select(range(len(records)))
    object.__setattr__(source, "records", records)
    found = caption(source, Fake(), **settings(tmp_path, data="coco_ad/all-split_1", prompt="coco"))
    assert found.folder.name == "coco_ad_captions_some-vlm-8b_coco"
    labels = json.loads((found.folder / "train_labels_coco_ad_some-vlm-8b.json").read_text())
    other = caption(
        source.select(range(4, 0, -1)), Fake(), **settings(tmp_path / "other", data="coco_ad", prompt="coco")
    )
    assert other.folder.name == "coco_ad_captions_some-vlm-8b_coco"
    assert other.captions.texts == found.captions.texts[4:0:-1]
    assert Captions.load(found.folder).attach(other.captions.ids).texts == other.captions.texts
    assert labels[3] == ["3"]
    assert found.captions.ids == tuple(record.identity for record in records)


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxad\[caption\]'"):
        HuggingFaceCaptioner("any", "pd")


def test_decoded_images_are_uint8_rgb(parts, tmp_path):
    seen = []

    def describe(images):
        seen.extend(images)
        return ["text"] * len(images)

    caption(parts.train, lambda: describe, **settings(tmp_path))
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in seen)
