"""run.py, which stands alone: it sees images as jaxad sees them, and says the same of them."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.data import decode as own
from jaxad.data import pixels as pixels_of
from jaxad.deploy import runner
from jaxad.nn import platforms
from jaxad.testing import BACKBONE
from jaxad.types import View

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (37, 23, 4), np.uint8)


def written(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    color = Image.fromarray(PIXELS[..., :3])
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        written(folder, "color.png", color),
        written(folder, "gray.png", color.convert("L")),
        written(folder, "palette.png", color.convert("P")),
        written(folder, "clear.png", Image.fromarray(PIXELS)),
        written(folder, "gray-clear.png", Image.fromarray(PIXELS).convert("LA")),
        written(folder, "two.png", color.convert("1")),
        written(folder, "photo.jpg", color, quality=80),
        written(folder, "turned.jpg", color, quality=80, exif=turned.tobytes()),
        written(folder, "print.jpg", color.convert("CMYK"), quality=80),
    ]


def test_images_are_decoded_hashed_and_resized_as_by_jaxad(files):
    for file in files:
        pixels, wanted = runner.decode(file), own.decode_image(file)
        np.testing.assert_array_equal(pixels, wanted, err_msg=file.name)
        assert runner.seed_of(pixels) == pixels_of.pixel_hash(wanted)
        for view in (View(30, 56, "bilinear"), View(30, 56, "bicubic"), View(30, 30, "bicubic", crop=True)):
            np.testing.assert_array_equal(
                runner.view_of(pixels, dataclasses.asdict(view)), pixels_of.resize(wanted, view)
            )


def test_what_cannot_be_judged_is_named(tmp_path):
    wide = written(tmp_path, "wide.png", Image.fromarray(np.zeros((9, 9), np.uint16)))
    for name in ("color.png", "clear.png", "color.tiff"):
        cv2.imwrite(str(tmp_path / name), np.zeros((9, 9, 4 if name == "clear.png" else 3), np.uint16))
        with pytest.raises(runner.UnusableError, match="16 bits a channel"):
            runner.decode(tmp_path / name)
    signed = written(tmp_path, "signed.tiff", Image.new("L", (9, 9)), tiffinfo={339: 2})
    with pytest.raises(runner.UnusableError, match="signed"):
        runner.decode(signed)
    small = written(tmp_path, "small.png", Image.new("L", (9, 4)))
    (tmp_path / "broken.png").write_bytes(b"PNG? no")
    for file, why in ((wide, "8 bits"), (small, "fewer than 5"), (tmp_path / "broken.png", "cannot identify")):
        with pytest.raises(runner.UnusableError, match=why) as error:
            runner.decode(file, 5)
        assert str(file) in str(error.value)


def test_it_takes_the_files_that_jaxad_takes(tmp_path):
    assert (set(runner.FORMATS), runner.SUFFIXES) == (set(own.FORMATS), own.EXTENSIONS)
    other = written(tmp_path, "other.png", Image.new("RGB", (9, 9)), format="TGA")
    with pytest.raises(runner.UnusableError, match="cannot identify"):
        runner.decode(other)


def test_it_needs_nothing_of_jaxad():
    tree = ast.parse(Path(runner.__file__).read_text())
    modules = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known = sys.stdlib_module_names | {"numpy", "PIL", "onnxruntime", "jax"}
    assert {module.split(".")[0] for module in modules} <= known


@pytest.fixture(scope="module", params=["stablehlo", "onnx"])
def exported(request, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / request.param
    return jaxad.export(trained.workdir, out, format=request.param, platforms=("cpu",))


def test_onnx_is_the_same_on_a_host_with_accelerators(parts, tmp_path, monkeypatch):
    """Left to itself, a detector of precision "auto" is of 16 bits there, which ONNX is not written in."""
    bank = jaxad.PatchBank.create(jaxad.PatchBankConfig(backbone=BACKBONE, image_size=56))
    jaxad.fit(bank, parts.train, workdir=tmp_path / "run", holdout=parts.holdout)
    jaxad.export(tmp_path / "run", tmp_path / "here", format="onnx")
    gpu = SimpleNamespace(sharding=jax.sharding, devices=lambda: [SimpleNamespace(platform="gpu")])
    monkeypatch.setattr(platforms, "jax", gpu)
    assert jaxad.restore(tmp_path / "run").detector.backbone.dtype == "bfloat16"
    jaxad.export(tmp_path / "run", tmp_path / "there", format="onnx")
    written = [(tmp_path / place / "detector.onnx").read_bytes() for place in ("here", "there")]
    assert written[0] == written[1]


def test_run_py_says_what_predict_says(exported, trained, parts, tmp_path):
    paths = [record.file for record in parts.test.records]
    (tmp_path / "broken.png").write_bytes(b"PNG? no")
    words = [sys.executable, exported / "run.py", tmp_path / "broken.png", *paths, "--category", "tile", "--batch", "3"]
    words += ["--maps", tmp_path / "maps"]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "broken.png" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    answers = jaxad.predict(trained.model, paths, threshold=trained.threshold, category="tile")
    for line, answer in zip(lines, answers, strict=True):
        assert line["score"] == pytest.approx(answer.score, rel=1e-4)
        assert {name: line[name] for name in ("file", "category", "threshold", "anomalous")} == {
            "file": answer.file,
            "category": "tile",
            "threshold": trained.threshold.of("tile").image,
            "anomalous": answer.anomalous,
        }
        hottest = np.unravel_index(answer.map.argmax(), answer.map.shape)[::-1]
        assert np.abs(np.subtract(line["peak"], hottest)).max() <= 1
    maps = sorted((tmp_path / "maps").glob("*.npy"))
    assert len(maps) == len(paths)
    assert np.load(maps[0]).shape == (256, 256)


def test_the_description_says_all_that_is_needed(exported, trained):
    record = json.loads((exported / "detector.json").read_text())
    guide = (Path(__file__).parents[2] / "docs/guides/deploy.md").read_text()
    assert [name for name in record if f"| `{name}` |" not in guide] == []
    image, seed = record["inputs"]
    assert image["view"] == {"height": 56, "width": 56, "interpolation": "bilinear", "crop": False}
    assert (image["shape"], image["dtype"]) == (["b", 56, 56, 3], "uint8")
    assert (seed["name"], seed["shape"], seed["dtype"]) == ("seed", ["b"], "uint32")
    assert record["threshold"]["limits"]["tile"]["image"] == trained.threshold.of("tile").image
    assert record["protocol"]["smoothing"] == {"sigma": 4.0, "radius": 16, "boundary": "reflect"}
    assert record["outputs"][0]["what"] == "maximum of the map averaged over 16 x 16 pixels"
    assert record["model"]["step"] == 12
    assert "```bash\npython run.py IMAGE_OR_FOLDER...\n```" in (exported / "README.md").read_text()


def test_a_changed_file_is_refused(exported, tmp_path):
    record = json.loads((exported / "detector.json").read_text())
    for name in record["files"]:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(SystemExit, match="SHA-256 differs"):
        runner.program_of(record, tmp_path)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", ["dpdiff", "patch-bank"])
def test_without_jaxad_real_images_get_the_same_answers(name, real_data, tmp_path):
    """In an environment that has only what run.py needs, 50 real images get jaxad's scores to 1e-4 and its verdicts."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "bottle").symlink_to(real_data / "parts" / "bottle")
    flags = ["--train.steps", "5", "--train.batch-size", "8"] if name == "dpdiff" else []
    flags += ["--preset", "small", "--model.backbone", str(real_data / "weights" / "dinov2-small")]
    words = ["fit", name, "--data", f"folder:{tmp_path / 'parts'}", "--workdir", str(tmp_path / "run"), *flags]
    subprocess.run([sys.executable, "-m", "jaxad", *words], check=True)
    test = real_data / "parts" / "bottle" / "test"
    images = sorted(p for p in test.rglob("*") if p.is_file())[:50]
    assert len(images) == 50
    restored = jaxad.restore(tmp_path / "run")
    answers = jaxad.predict(restored.detector, images, threshold=restored.threshold)
    python = tmp_path / "alone" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "alone"], check=True)
    needs = ["numpy", "pillow", "onnxruntime==1.32.0", "jax==0.10.2"]
    subprocess.run([python, "-m", "pip", "install", "-q", *needs], check=True)
    absent = subprocess.run([python, "-I", "-c", "import jaxad"], capture_output=True, text=True, check=False)
    assert "No module named 'jaxad'" in absent.stderr
    for kind in ("stablehlo", "onnx"):
        out = jaxad.export(tmp_path / "run", tmp_path / kind, format=kind)
        command = [python, "-I", out / "run.py", *images]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, cwd=tmp_path)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for line, answer in zip(lines, answers, strict=True):
            assert line["score"] == pytest.approx(answer.score, abs=1e-4 * max(1, abs(answer.score)))
            assert line["anomalous"] == answer.anomalous
