"""Updates of finished runs: what is learned, what is measured, and that old or new version is whole at any time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad import cli
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.inference.calibrate import choose_limits
from jaxad.inference.checkpoint import find_step
from jaxad.inference.rechoose import read_decided
from jaxad.testing import BACKBONE, make_parts, toy_model, toy_training
from jaxad.training import update as updating
from jaxad.training.update import update
from jaxad.training.verification import verify
from jaxad.training.versions import Origin, revert
from tests.training.test_trainer import arrays, assert_bit_equal


def bank(**changes):
    return jaxad.PatchBank.create(jaxad.PatchBankConfig(**{"backbone": BACKBONE, "image_size": 56} | changes))


def fitted(detector, data, workdir, config=None):
    return jaxad.fit(
        detector, data.train, config, workdir=workdir, holdout=data.holdout, provenance={"holdout": 0.1, "skipped": []}
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return jaxad.data.load(f"folder:{make_parts(tmp_path_factory.mktemp('old') / 'parts')}")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("bank") / "run"
    fitted(bank(), data, workdir)
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def alarms(tmp_path_factory):
    """Good parts of another look, which the runs reject."""
    folder = tmp_path_factory.mktemp("alarms")
    rows = np.arange(56)[:, None]
    for number in range(12):
        rng = np.random.default_rng(number)
        gray = 120 + 60 * np.sign(np.sin(rows / 3 + rng.uniform(0, 6))) + rng.normal(0, 4, (56, 56))
        Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
    return folder


def origin(folder, category="disc"):
    return Origin(str(folder), (), 0.0, "", category)


def labels(done):
    return {one.what: (one.images, one.old, one.new) for one in done.compared}


def test_false_alarms_that_a_bank_has_learned_are_none_any_more(run, alarms, data):
    before = jaxad.restore(run)
    done = update(run, origin(alarms), kind="false-alarm", test=data.test)
    after = jaxad.restore(run)
    assert labels(done)["new images, learned: false alarms"] == (12, 12, 0)
    assert labels(done)["test: false alarms"][0] == 8
    assert labels(done)["test: missed defects"][0] == 8
    assert after.folder.name == "1"
    assert after.threshold == done.threshold
    old, new = (np.asarray(one.detector.banks[...]) for one in (before, after))
    assert len(new[0]) == len(old[0]) + 12 * 16
    np.testing.assert_array_equal(new[0][: len(old[0])], old[0])
    # The old hold-out is measured anew by a larger bank, which only lowers scores.
    kept, scores = (read_decided(place).holdout for place in (run / "checkpoints/0", run))
    assert scores.digests == kept.digests
    assert (scores.scores <= kept.scores + 1e-5).all()
    assert not [finding for finding in verify(run) if finding.damage]


def test_learned_false_alarms_do_not_lower_the_threshold(run, data):
    """Measured again at the same rate it would follow the hold-out's scores, which fall, and undo the gain."""
    before = read_decided(run)
    good = data.test.records[0].file.parent
    done = update(run, origin(good), kind="false-alarm")
    after = read_decided(run)
    assert (after.holdout.scores < before.holdout.scores - 1e-4).any()
    assert choose_limits(after.holdout).of("disc").image < before.threshold.of("disc").image
    assert done.threshold.of("disc").image == before.threshold.of("disc").image
    assert after.threshold == done.threshold


def test_of_good_images_a_share_is_held_out(run, alarms):
    done = update(run, origin(alarms))
    assert (done.learned, len(read_decided(run).holdout)) == (7, 10 + 5)
    assert labels(done)["new images, held out: false alarms"][0] == 5


def test_the_old_version_comes_back(run, alarms, finished, monkeypatch):
    monkeypatch.chdir(run.parent)
    run = Path(run.name)
    update(run, origin(alarms))
    assert revert(run)[0] == 0
    assert find_step(run).name == "0"
    assert_bit_equal(jaxad.restore(run).detector, jaxad.restore(finished).detector)
    assert (run / "checkpoints/reverted-1").is_dir()
    with pytest.raises(CheckpointError, match="is no update"):
        revert(run)
    update(run, origin(alarms))
    assert find_step(run).name == "1"


@pytest.mark.parametrize("place", ["choose_limits", "measure_holdout", "publish"])
def test_what_stops_an_update_leaves_the_old_version(run, alarms, finished, place, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(updating, place, stop)
    # As after SIGKILL: nothing is cleared.
    monkeypatch.setattr("jaxad.training.versions.shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        update(run, origin(alarms))
    monkeypatch.undo()
    assert (run / "update").is_dir()
    restored = jaxad.restore(run)
    assert restored.folder.name == "0"
    assert restored.threshold == jaxad.restore(finished).threshold
    assert update(run, origin(alarms)).step == 1
    assert not (run / "update").exists()


def test_a_dry_run_replaces_nothing(run, alarms):
    done = update(run, origin(alarms), keep=False)
    assert done.step is None
    assert find_step(run).name == "0"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.json"]


def test_images_that_are_known_are_left_out(run, alarms, data):
    update(run, origin(alarms), kind="false-alarm")
    with pytest.raises(DataError, match="no normal images that the run does not know"):
        update(run, origin(alarms), kind="false-alarm")
    folder = data.train.records[0].file.parents[3]
    with pytest.raises(DataError, match="no normal images that the run does not know"):
        update(run, Origin(f"folder:{folder}", (), 0.0, ""))


def test_a_bank_does_without_old_images_and_others_say_what_they_need(tmp_path, alarms):
    old = make_parts(tmp_path / "parts")
    data = jaxad.data.load(f"folder:{old}")
    fitted(bank(), data, tmp_path / "bank")
    padim = jaxad.PaDiM.create(jaxad.PaDiMConfig(backbone=BACKBONE, image_size=56, dimensions=8))
    fitted(padim, data, tmp_path / "padim")
    shutil.rmtree(old)
    kept = read_decided(tmp_path / "bank").holdout
    done = update(tmp_path / "bank", origin(alarms), kind="false-alarm")
    assert done.step == 1
    np.testing.assert_array_equal(read_decided(tmp_path / "bank").holdout.scores, kept.scores)
    with pytest.raises(DataError, match="padim needs its old images besides the new ones"):
        update(tmp_path / "padim", origin(alarms))


def test_a_new_category_gets_a_bank_of_its_own(data, alarms, tmp_path):
    fitted(bank(per_category=True), data, tmp_path / "run")
    update(tmp_path / "run", origin(alarms, "ring"))
    restored = jaxad.restore(tmp_path / "run")
    assert restored.detector.categories == ("disc", "tile", "ring")
    sizes = [int((~np.isnan(one[:, 0])).sum()) for one in np.asarray(restored.detector.banks[...])]
    assert sizes == [7 * 16] * 3
    assert restored.threshold.limits.keys() == {"", "disc", "tile", "ring"}


def test_statistics_are_those_of_old_and_new_images(data, alarms, tmp_path):
    def padim():
        return jaxad.PaDiM.create(jaxad.PaDiMConfig(backbone=BACKBONE, image_size=56, dimensions=8))

    fitted(padim(), data, tmp_path / "run")
    update(tmp_path / "run", origin(alarms), kind="false-alarm")
    both = jaxad.data.JoinedSource([data.train, jaxad.data.loose_images(alarms, "disc")])
    assert_bit_equal(jaxad.restore(tmp_path / "run").detector, padim().remember(both))


def test_training_goes_on_with_old_and_new_images_and_again(data, alarms, tmp_path):
    config = toy_training()
    fitted(toy_model(), data, tmp_path / "run", config)
    done = update(tmp_path / "run", origin(alarms), steps=3)
    restored = jaxad.restore(tmp_path / "run")
    assert (done.step, restored.meta["step"], restored.meta["train"]["steps"]) == (15, 15, 15)
    assert restored.meta["data"]["images"] == len(data.train) + 7
    before, after = arrays(jaxad.restore(tmp_path / "run/checkpoints/12").detector), arrays(restored.detector)
    assert before.keys() == after.keys()
    assert any(before[path].tobytes() != after[path].tobytes() for path in before if path.startswith("denoiser/"))
    # What the first update learned is old to the second.
    other = tmp_path / "more"
    shutil.copytree(alarms, other)
    Image.fromarray(np.full((56, 56), 77, np.uint8)).save(other / "new.png")
    again = update(tmp_path / "run", origin(other), kind="false-alarm", steps=1)
    assert again.learned == 1
    Image.fromarray(np.full((56, 56), 78, np.uint8)).save(tmp_path / "one.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "one.png").rename(tmp_path / "one" / "one.png")
    third = update(tmp_path / "run", origin(tmp_path / "one"), kind="false-alarm", steps=1, keep=False)
    assert third.learned == 1
    with pytest.raises(CheckpointError, match="another run"):
        fitted(toy_model(), data, tmp_path / "run", config)


def test_a_bundle_has_no_state_to_go_on_from(trained, alarms, tmp_path):
    jaxad.export(trained.workdir, tmp_path / "bundle", format="bundle")
    with pytest.raises(CheckpointError, match="no optimizer state to go on from, as in a bundle"):
        update(tmp_path / "bundle", origin(alarms))


def test_the_command_line(run, alarms, capsys, tmp_path, data):
    root = data.train.records[0].file.parents[3]
    words = ["update", "--checkpoint", run, "--data", alarms, "--category", "disc", "--as", "false-alarm"]
    cli.run(cli.parse([str(word) for word in (*words, "--test", f"folder:{root}", "--out", tmp_path / "said.json")]))
    said = capsys.readouterr().out
    assert "12 images learned; step 1 counts now" in said
    assert "test: missed defects" in said
    assert (tmp_path / "said.json").is_file()
    cli.run(cli.parse(["update", "--checkpoint", str(run), "--revert"]))
    assert "step 0 counts again" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no new images given"):
        cli.run(cli.parse(["update", "--checkpoint", str(run)]))
