"""`jaxad predict`: lines and pictures, earlier results, where images may stand, what it refuses before work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxad import cli
from jaxad.cli.predict import Predict
from jaxad.data.captions.writing import write_captions
from jaxad.data.layout import photos
from tests.cli.shell import failure, jaxad
from tests.data.counting import counted

DISC_TILE = ("disc", "tile")
TILE = ("--category", "tile")
REST = ("--checkpoint", "R", "--out", "O", "--save", "overlay", "map", "mask")
SIZES = {"a/1.png": (91, 57), "b/1.gif": (40, 57), "b/1.png": (33, 57), "b/deep.tiff": (23, 101)}


@pytest.fixture
def odd_images(tmp_path) -> Path:
    """Images of odd sizes and several modes in two folders that share a file name."""
    random = np.random.default_rng(0)
    color = random.integers(0, 256, (91, 57, 4), np.uint8)
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/b").mkdir()
    Image.fromarray(color).save(tmp_path / "in/a/1.png")
    Image.fromarray(color[:33, :, 0]).save(tmp_path / "in/b/1.png")
    Image.fromarray(color[:40, :, 1]).convert("P").save(tmp_path / "in/b/1.gif")
    Image.fromarray(random.integers(0, 65536, (23, 101), np.uint16)).save(tmp_path / "in/b/deep.tiff")
    return tmp_path / "in"


def test_predict_writes_lines_and_pictures_at_each_images_own_size(work, odd_images, tmp_path):
    before = {file: file.read_bytes() for file in odd_images.rglob("*.*")}
    out = tmp_path / "out"
    jaxad("predict", odd_images, "--checkpoint", work / "my run", "--out", out, "--save", "overlay", "map", "mask")
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    keys = ["file", "category", "score", "threshold", "anomalous", "box", "scaled", "model"]
    assert [list(line) for line in lines] == [keys] * 4
    assert [line["file"] for line in lines] == [str(odd_images / name) for name in SIZES]
    for line, (name, (height, width)) in zip(lines, SIZES.items(), strict=True):
        stem = name if name.startswith("b/1") else str(Path(name).with_suffix(""))
        map = np.load(out / f"map/{stem}.npy", allow_pickle=False)
        assert (map.shape, map.dtype) == ((height, width), np.float32)
        mask = np.array(Image.open(out / f"mask/{stem}.png"))
        assert mask.shape == (height, width)
        assert set(np.unique(mask)) <= {0, 255}
        with Image.open(out / f"overlay/{stem}.jpg") as overlay:
            assert overlay.size == (width, height)
        assert line["anomalous"] == (line["score"] > line["threshold"])
        assert (line["box"] is not None) == line["anomalous"]
        if line["box"]:
            left, top, right, bottom = line["box"]
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
    # Noise is nothing like the parts; without a box the test above would check nothing.
    assert any(line["box"] for line in lines)
    names = {"predictions.jsonl", "predictions.csv", "index.html", "model.json"}
    assert names == {file.name for file in out.iterdir() if file.is_file()}
    assert sum(file.is_file() for file in out.rglob("*")) == 12 + len(names)
    assert {file: file.read_bytes() for file in odd_images.rglob("*.*")} == before


def test_predict_writes_pictures_of_the_method(work, odd_images, tmp_path):
    words = ("input", "features", "terms", "heatmap")
    jaxad("predict", odd_images, "--checkpoint", work / "my run", "--out", tmp_path / "out", "--save", *words)
    explained = tmp_path / "out/explained"
    found = {path.relative_to(explained).as_posix() for path in explained.rglob("*.*")}
    names = [*(f"local-{number}" for number in (1, 2, 3)), "global-1", "global-2", "residual"]
    folders = {"heatmap", "features/before", "features/after", *(f"terms/{name}" for name in names)}
    stems = ("a/1", "b/1.gif", "b/1.png", "b/deep")
    assert found == {f"{place}/{stem}.jpg" for place in folders for stem in stems} | {f"input/{s}.png" for s in stems}
    sizes = {}
    for place in ("input/a/1.png", "heatmap/a/1.jpg", "terms/residual/a/1.jpg", "features/after/a/1.jpg"):
        with Image.open(explained / place) as picture:
            sizes[place.split("/")[0]] = picture.size
    assert sizes == {"input": (56, 56), "heatmap": (57, 91), "terms": (57, 91), "features": (57, 91)}
    # Results are no photos.
    assert not (tmp_path / "out/overlay").exists()
    assert photos(tmp_path / "out").files == []


def test_predict_names_the_pictures_that_a_detector_has_before_work(work, odd_images, tmp_path, capsys):
    words = ("predict", odd_images, "--checkpoint", work / "bank", "--out", tmp_path / "out", *TILE, "--save")
    said = failure(capsys, *words, "overlay", "reconstruction", "terms")
    assert "--save reconstruction terms: this patch-bank has overlay map mask heatmap input" in said
    assert not list((tmp_path / "out").glob("*"))


def test_predict_opens_and_decodes_every_image_once(work, odd_images, tmp_path):
    """Also for the pictures, which show it at its own size."""
    words = ("--checkpoint", work / "my run", "--out", tmp_path / "out", "--save", "overlay", "map", "mask")
    with counted(odd_images) as counts:
        jaxad("predict", odd_images, *words)
    assert sorted(counts.decoded.values()) == [1] * len(SIZES)
    assert sorted(counts.opened.values()) == [1] * len(SIZES)


def test_predict_replaces_earlier_results_as_a_whole(work, odd_images, tmp_path):
    checkpoint = ("--checkpoint", work / "bank", "--out", tmp_path / "out", *TILE)
    jaxad("predict", odd_images / "b", odd_images / "a/1.png", *checkpoint, "--save", "map", "mask")
    jaxad("predict", odd_images / "a/1.png", *checkpoint, "--save", "map", "--map-format", "tiff")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*"))
    assert files == ["index.html", "map", "map/1.tiff", "model.json", "predictions.csv", "predictions.jsonl"]
    with Image.open(tmp_path / "out/map/1.tiff") as map:
        assert (map.mode, map.size) == ("F", (57, 91))
    (line,) = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["category"] == "tile"


def test_predict_that_fails_leaves_earlier_results(work, odd_images, tmp_path, capsys):
    command = ("predict", odd_images, "--checkpoint", work / "bank", "--out", tmp_path / "out", *TILE)
    jaxad(*command)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    (odd_images / "a/broken.png").write_bytes(b"not a picture")
    (odd_images / "b/short.png").write_bytes((odd_images / "a/1.png").read_bytes()[:200])
    message = failure(capsys, *command)
    assert "2 of 6 images cannot be read" in message
    assert "broken.png: unreadable image" in message
    assert "short.png: truncated image" in message
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()} == before


def test_predict_leaves_bad_images_out_on_request(work, odd_images, tmp_path, capsys):
    """The others are as without them."""
    command = ("--checkpoint", work / "bank", "--out", tmp_path / "out", *TILE)
    jaxad("predict", odd_images, *command)
    before = (tmp_path / "out/predictions.jsonl").read_text()
    broken, short = odd_images / "b/2.png", odd_images / "b/short.png"
    broken.write_bytes(b"not a picture")
    short.write_bytes((odd_images / "a/1.png").read_bytes()[:200])
    capsys.readouterr()
    jaxad("predict", odd_images, *command, "--on-bad", "skip")
    lines = (tmp_path / "out/predictions.jsonl").read_text()
    # Scores but for rounding, as batches are others.
    pairs = zip(before.splitlines(), lines.splitlines(), strict=True)
    for old, new in ((json.loads(old), json.loads(new)) for old, new in pairs):
        close = {name: pytest.approx(old[name], abs=1e-5) for name in ("score", "scaled")}
        assert new == old | close
    assert "of 4 images are anomalous" in (said := capsys.readouterr()).out
    assert "2 of 6 images cannot be used" in said.err.replace("\n", " ")
    problems = [json.loads(line) for line in (tmp_path / "out/problems.jsonl").read_text().splitlines()]
    assert [list(problem) for problem in problems] == [["file", "kind", "detail"]] * 2
    assert [(p["file"], p["kind"]) for p in problems] == [
        (str(broken), "unreadable image"),
        (str(short), "truncated image"),
    ]
    message = failure(capsys, "predict", broken, short, *command, "--on-bad", "skip")
    assert "2 of 2 images cannot be read" in message
    assert (tmp_path / "out/predictions.jsonl").read_text() == lines


def test_predict_never_replaces_what_it_did_not_write(work, odd_images, tmp_path, capsys):
    checkpoint = ("--checkpoint", work / "bank", *TILE)
    (odd_images / "mask").mkdir()
    (odd_images / "mask/truth.png").write_bytes(b"mine")
    assert "did not come from jaxad" in failure(capsys, "predict", odd_images / "a", *checkpoint, "--out", odd_images)
    assert (odd_images / "mask/truth.png").read_bytes() == b"mine"
    out = tmp_path / "out"
    jaxad("predict", odd_images / "a", *checkpoint, "--out", out)
    assert "would replace the images" in failure(capsys, "predict", out / "overlay", *checkpoint, "--out", out)
    assert (out / "overlay/1.jpg").is_file()
    (tmp_path / "file").write_text("")
    assert "is a file" in failure(capsys, "predict", odd_images / "a", *checkpoint, "--out", tmp_path / "file")


def test_predict_refuses_before_work(work, odd_images, tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    message = failure(capsys, "predict", "no1.png", odd_images, "no2.png", "--checkpoint", work / "bank", *out)
    assert "no1.png: no such file" in message
    assert "no2.png: no such file" in message
    command = ("predict", odd_images, "--checkpoint", work / "bank", *out)
    assert "knows disc, tile" in failure(capsys, *command, "--category", "screw")
    assert "--category: this patch-bank needs it" in failure(capsys, *command)
    assert "--batch-size 0" in failure(capsys, *command, "--batch-size", "0")
    (tmp_path / "empty").mkdir()
    assert "no image in this folder" in failure(capsys, "predict", tmp_path / "empty", *command[2:])
    assert not (tmp_path / "out").exists()


def test_out_inside_the_input_and_results_of_others_are_never_judged(work, odd_images):
    """Also where the input is itself the folder of results."""
    checkpoint = ("--checkpoint", work / "my run", "--save", "overlay", "mask")
    for out in (odd_images / "out", odd_images / "out", odd_images / "a/other", odd_images, odd_images):
        jaxad("predict", odd_images, *checkpoint, "--out", out)
        lines = [json.loads(line)["file"] for line in (out / "predictions.jsonl").read_text().splitlines()]
        assert lines == [str(odd_images / name) for name in SIZES]


def test_categories_by_subfolder_have_their_own_thresholds_and_masks_are_not_judged(work, tmp_path, capsys):
    data, out = work / "my parts", tmp_path / "out"
    jaxad("predict", data, "--checkpoint", work / "bank", "--out", out)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "categories by subfolder: disc 20, tile 20" in said
    assert "left out: 8 masks" in said
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert all(Path(line["file"]).relative_to(data).parts[0] == line["category"] for line in lines)
    limits = {category: {line["threshold"] for line in lines if line["category"] == category} for category in DISC_TILE}
    assert [len(limits[category]) for category in DISC_TILE] == [1, 1]
    assert limits["disc"] != limits["tile"]
    # A detector that needs categories leaves out what lies in none.
    Image.new("RGB", (60, 60)).save(tmp_path / "loose.png")
    words = ("predict", data / "..", tmp_path / "loose.png", "--checkpoint", work / "bank", "--out", out)
    assert "--category: this patch-bank needs it" in failure(capsys, *words)
    jaxad("predict", data, tmp_path / "loose.png", *words[3:], "--on-bad", "skip")
    (problem,) = (tmp_path / "out/problems.jsonl").read_text().splitlines()
    assert json.loads(problem)["kind"] == "unknown category"


def test_a_threshold_given_by_hand_decides(work, odd_images, tmp_path):
    for value, flagged in (("-1", 4), ("1e9", 0)):
        out = tmp_path / value
        jaxad("predict", odd_images, "--checkpoint", work / "my run", "--out", out, f"--threshold={value}")
        lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        assert sum(line["anomalous"] for line in lines) == flagged
        assert all((line["scaled"] > 0.5) == line["anomalous"] for line in lines)
        assert {line["threshold"] for line in lines} == {float(value)}


def test_networks_compute_in_the_precision_that_is_asked_for(work, odd_images, tmp_path):
    scores, where = {}, ("predict", odd_images, "--checkpoint", work / "my run", *TILE)
    for words in ((), ("--precision", "float32"), ("--precision", "bfloat16")):
        out = tmp_path / "-".join(("out", *words))
        jaxad(*where, "--out", out, *words)
        lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        scores[words[1:]] = np.array([line["score"] for line in lines])
        assert {line["threshold"] for line in lines} != {None}
        assert json.loads((out / "model.json").read_text())["precision"] == (words[1] if words else "auto")
    auto, exact, rounded = scores.values()
    np.testing.assert_array_equal(auto, exact)
    np.testing.assert_allclose(rounded, exact, rtol=0.1)
    assert not np.array_equal(rounded, exact)


def test_results_say_which_model_made_them(work, odd_images, tmp_path):
    jaxad("predict", odd_images, "--checkpoint", work / "my run", "--out", tmp_path / "out")
    model = json.loads((tmp_path / "out/model.json").read_text())
    line = json.loads((tmp_path / "out/predictions.jsonl").read_text().splitlines()[0])
    assert line["model"] == model["sha256"][:12]
    assert (model["run"], model["detector"]) == (str(work / "my run"), "dpdiff")
    assert model["sha256"][:12] in (tmp_path / "out/index.html").read_text()


@pytest.mark.slow
def test_one_broken_file_in_a_thousand_costs_one_answer(work, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(1000):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number:04}.jpg")
    broken = folder / "0500.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    words = ("--checkpoint", work / "my run", "--out", tmp_path / "out", "--on-bad", "skip")
    jaxad("predict", folder, *words)
    lines = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    (problem,) = (tmp_path / "out/problems.jsonl").read_text().splitlines()
    assert len(lines) == 999
    assert json.loads(problem)["file"] == str(broken)
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 1001
    page = tmp_path / "out/index.html"
    assert page.stat().st_size < 10e6
    with capsys.disabled():
        print(f"\n999 answers, one reason, a page of {page.stat().st_size / 1e6:.1f} MB")


@pytest.mark.parametrize(
    "arguments",
    [
        "a.png folder --checkpoint run --out out --save overlay map mask --category nut",
        "--checkpoint run --out out --save overlay map mask --category nut a.png folder",
        "--checkpoint run --category nut --out out --save overlay map mask a.png folder",
        "a.png --checkpoint run folder --category=nut --out out --save overlay map mask",
    ],
)
def test_predict_takes_images_before_between_and_after_flags(arguments):
    command = cli.parse(["predict", *arguments.split()])
    images, save = (Path("a.png"), Path("folder")), ("overlay", "map", "mask")
    assert command == Predict(images, Path("run"), Path("out"), category="nut", save=save)


@pytest.mark.parametrize("order", [("photos/", *REST), (*REST, "photos/")])
def test_predict_as_the_readme_has_it(order):
    command = cli.parse(["predict", *order])
    assert isinstance(command, Predict)
    assert (command.images, command.save) == ((Path("photos"),), ("overlay", "map", "mask"))


def test_predict_that_is_misspelled(refused):
    assert "no images given" in refused("predict", "--checkpoint", "run", "--out", "out")
    assert "--batch-size" in refused("predict", "a.png", "--checkpoint", "run", "--out", "out", "--batch-szie", "3")
    assert "--checkpoint" in refused("predict", "a.png", "--out", "out")


def test_a_misspelled_kind_of_picture_is_answered(capsys, tmp_path):
    words = ("predict", tmp_path, "--checkpoint", "run", "--out", "out", "--save", "overlya")
    assert "did you mean --save overlay?" in failure(capsys, *words)


def test_captions_are_looked_at_before_networks_are_loaded(work, odd_images, tmp_path, monkeypatch, capsys):
    def too_late(*_, **__):
        pytest.fail("networks are loaded")

    monkeypatch.setattr("jaxad.inference.checkpoint.restore", too_late)
    words = ("predict", odd_images, "--checkpoint", work / "my run", "--out", tmp_path / "out", "--captions", tmp_path)
    said = failure(capsys, *words)
    assert "takes no captions at test time" in said
    assert "no file test_captions_" in said, "both at once"
    monkeypatch.setattr("jaxad.cli._captions.are_taken", lambda config: True)
    assert "takes no captions" not in failure(capsys, *words)
    folder = write_captions(tmp_path, "parts", "vlm", "pd", "test", ["c/1.png"], lambda images: ["a disc"])
    assert "no image has a caption there" in failure(capsys, *words[:-1], folder)
    write_captions(tmp_path, "parts", "vlm", "pd", "test", ["a/1.png"], lambda images: ["a disc"])
    with pytest.raises(pytest.fail.Exception, match="networks are loaded"):
        jaxad(*words[:-1], folder)
    assert "3 of 4 images have no caption" in capsys.readouterr().err


def test_captions_of_another_kind_than_the_thresholds_are_refused(work, odd_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxad.cli._captions.unlike_the_threshold", lambda *_: "it is of another kind")
    words = ("predict", odd_images / "a", "--checkpoint", work / "my run", "--out", tmp_path / "out")
    assert "the threshold does not hold, it is of another kind" in failure(capsys, *words)
    jaxad(*words, "--threshold", 1)
    with pytest.raises(SystemExit):
        jaxad("predict", "--watch", odd_images, *words[2:], "--captions", tmp_path)
    assert "leave --captions out" in capsys.readouterr().err
    assert "takes no captions at test time" in failure(capsys, *words, "--captions", tmp_path)
