"""Updates of finished runs: what is learned, what is measured, and that old or new version is whole at any time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad import cli
from jaxad.config import DataConfig, TrainConfig, to_json
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.features import FeatureCache
from jaxad.inference.calibrate import choose_limits
from jaxad.inference.card import CARD
from jaxad.inference.checkpoint import find_step
from jaxad.inference.holdout_scores import HoldoutScores
from jaxad.inference.predictor import Predictor
from jaxad.inference.rechoose import read_decided, rechoose
from jaxad.io.progress import Reporter
from jaxad.testing import BACKBONE, make_parts, toy_model, toy_training
from jaxad.training import trainer
from jaxad.training import update as updating
from jaxad.training.update import update
from jaxad.training.verification import verify
from jaxad.training.versions import Origin, load_normal, revert
from tests.data.captions.test_attach import publish
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
    return Origin(str(folder), category)


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
    before = (run / CARD).read_text()
    update(run, origin(alarms))
    assert f"an update with normal images of `{alarms.name}`" in (run / CARD).read_text()
    assert str(alarms) not in (run / CARD).read_text()
    assert revert(run)[0] == 0
    assert (run / CARD).read_text() == before
    assert find_step(run).name == "0"
    assert_bit_equal(jaxad.restore(run).detector, jaxad.restore(finished).detector)
    assert (run / "checkpoints/reverted-1").is_dir()
    with pytest.raises(CheckpointError, match="is no update"):
        revert(run)
    update(run, origin(alarms))
    assert find_step(run).name == "1"


@pytest.mark.parametrize("place", ["chosen_like", "measure_holdout", "publish"])
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


def test_a_dry_run_replaces_nothing_and_places_each_version_once(run, alarms, data, monkeypatch):
    made = []
    monkeypatch.setattr(updating, "Predictor", lambda *given: made.append(given) or Predictor(*given))
    done = update(run, origin(alarms), test=data.test, keep=False)
    assert (len(made), len(done.compared)) == (2, 5)
    assert done.step is None
    assert find_step(run).name == "0"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.json"]


def test_images_that_are_known_are_left_out(run, alarms, data):
    update(run, origin(alarms), kind="false-alarm")
    with pytest.raises(DataError, match="no normal images that the run does not know"):
        update(run, origin(alarms), kind="false-alarm")
    folder = data.train.records[0].file.parents[3]
    with pytest.raises(DataError, match="no normal images that the run does not know"):
        update(run, Origin(f"folder:{folder}"))


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


def test_training_goes_on_with_old_and_new_images_and_again(data, alarms, tmp_path, monkeypatch):
    config = toy_training()
    with monkeypatch.context() as earlier:
        more = {TrainConfig: {"tensorboard": False}}
        earlier.setattr(trainer, "to_json", lambda config: to_json(config) | more.get(type(config), {}))
        fitted(toy_model(), data, tmp_path / "run", config)
    monkeypatch.setattr(FeatureCache, "save", lambda *given: pytest.fail("nothing resumes an update"))
    done = update(tmp_path / "run", origin(alarms), steps=3)
    restored = jaxad.restore(tmp_path / "run")
    assert (done.step, restored.meta["step"], restored.meta["train"]["steps"]) == (15, 15, 15)
    assert "from" in restored.meta
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
    third = update(tmp_path / "run", origin(tmp_path / "one", "ring"), kind="false-alarm", steps=1)
    assert third.learned == 1
    assert jaxad.restore(tmp_path / "run").detector.categories == ("disc", "tile", "ring")
    with pytest.raises(CheckpointError, match="another run"):
        fitted(toy_model(), data, tmp_path / "run", config)


def test_a_bundle_has_no_state_to_go_on_from(trained, alarms, tmp_path):
    jaxad.export(trained.workdir, tmp_path / "bundle", format="bundle")
    with pytest.raises(CheckpointError, match="no optimizer state to go on from, as in a bundle"):
        update(tmp_path / "bundle", origin(alarms))


def digests_of(run):
    """What a run has learned, and what its threshold is chosen on, both as sets."""
    learned = "".join(jaxad.restore(run).meta["learned"])
    return {learned[i : i + 32] for i in range(0, len(learned), 32)}, set(read_decided(run).holdout.digests)


def padim():
    return jaxad.PaDiM.create(jaxad.PaDiMConfig(backbone=BACKBONE, image_size=56, dimensions=8))


def test_nothing_is_learned_twice_or_held_out_once_it_was_learned_though_the_old_folder_has_changed(tmp_path, alarms):
    """Of old images that cannot all be read again, the digests alone are known."""
    parts = make_parts(tmp_path / "parts", ("disc",))
    data = jaxad.data.load(f"folder:{parts}")
    run = tmp_path / "run"
    fitted(bank(), data, run)
    old = parts / "disc/train/good"
    first, known = digests_of(run)
    assert first == {data.train.digest(i).hex() for i in range(len(data.train))}
    Path(data.train.records[0].file).unlink()
    with pytest.raises(DataError, match="no normal images that the run does not know"):
        update(run, origin(old))
    for file in alarms.iterdir():
        shutil.copy(file, old / f"new-{file.name}")
    update(run, origin(old))
    learned, held = digests_of(run)
    assert not learned & held
    assert (first < learned, known <= held, len(learned | held)) == (True, True, 12 + 12)
    with pytest.raises(DataError, match="no normal images that the run does not know"):
        update(run, origin(old), kind="false-alarm")


def test_no_image_is_held_out_that_another_category_learns(run, tmp_path):
    new = make_parts(tmp_path / "new", ("none", "tile", "disc"))
    shutil.rmtree(new / "none")
    source = jaxad.data.load(f"folder:{new}", config=DataConfig(("disc",), holdout=0.0)).train
    last = sorted(range(len(source)), key=source.digest)[-4:]
    shutil.rmtree(new / "tile/train")
    for index in last:
        (new / "tile/train/good").mkdir(parents=True, exist_ok=True)
        shutil.copy(source.records[index].file, new / "tile/train/good")
    update(run, Origin(f"folder:{new}"))
    learned, held = digests_of(run)
    assert {source.digest(index).hex() for index in last} <= learned
    assert not learned & held


def test_old_images_are_found_among_others_by_their_pixels(tmp_path, alarms):
    """New images in the old folder make another hold-out of it, but not of the run."""
    parts = make_parts(tmp_path / "parts", ("disc",))
    data = jaxad.data.load(f"folder:{parts}")
    fitted(padim(), data, tmp_path / "run")
    _, kept = digests_of(tmp_path / "run")
    for file in alarms.iterdir():
        shutil.copy(file, parts / "disc/train/good" / f"new-{file.name}")
    update(tmp_path / "run", Origin(f"folder:{parts}"), kind="false-alarm")
    learned, held = digests_of(tmp_path / "run")
    assert (held, len(learned)) == (kept, 7 + 12)
    both = jaxad.data.JoinedSource([data.train, jaxad.data.loose_images(alarms, "disc")])
    assert_bit_equal(jaxad.restore(tmp_path / "run").detector, padim().remember(both))


def test_new_images_of_16_bits_are_read_at_the_depth_of_the_old(tmp_path, alarms):
    def wide(file, target, times):
        gray = np.asarray(Image.open(file).convert("L")).astype(np.uint16) * times
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gray).save(target)

    for number, file in enumerate(sorted(make_parts(tmp_path / "parts", ("disc",)).glob("disc/train/good/*.png"))):
        wide(file, tmp_path / f"wide/disc/train/good/{number}.png", 16)
    for file in alarms.iterdir():
        wide(file, tmp_path / "new" / file.name, 4)
    data = jaxad.data.load(f"folder:{tmp_path / 'wide'}")
    assert data.train.depths == {"disc": 12}
    fitted(bank(), data, tmp_path / "run")
    done = update(tmp_path / "run", origin(tmp_path / "new"), kind="false-alarm")
    assert labels(done)["new images, learned: false alarms"] == (12, 12, 0)
    # Of a category that is new, its own images tell.
    fresh, _ = load_normal(origin(tmp_path / "new", "ring"), None, None)
    assert fresh.depths == {"ring": 10}


def test_a_threshold_of_images_that_cannot_be_read_again_is_kept_by_a_bank_alone(run, data, alarms, tmp_path):
    fitted(padim(), data, tmp_path / "padim")
    other = HoldoutScores(
        "exact-256", "elsewhere", ("a",), ("disc",), ("ab" * 16,), *(np.array([float(n)]) for n in (3, 4, 1))
    )
    for workdir in (run, tmp_path / "padim"):
        rechoose(workdir, holdout=other)
    with pytest.raises(DataError, match=r"1 of the 1 images that the threshold was chosen on \(elsewhere\).*--data"):
        update(tmp_path / "padim", origin(alarms))
    update(run, origin(alarms))
    after = read_decided(run).holdout
    assert (after.digests[0], after.scores[0], len(after)) == ("ab" * 16, 3.0, 1 + 5)


def test_what_was_decided_for_a_category_stays(run, alarms):
    rechoose(run, value=50.0, categories=["disc"])
    rechoose(run, false_alarm=0.4, categories=["tile"])
    rule = update(run, origin(alarms)).threshold
    assert (rule.limits["disc"].image, [rule.asked(name) for name in ("", "disc", "tile")]) == (50.0, [0.01, None, 0.4])


def test_a_damaged_newest_step_makes_room_for_the_new_one(run, alarms, data):
    update(run, origin(alarms))
    (run / "checkpoints/1/meta/metadata").unlink()
    said = []
    reporter = Reporter(quiet=True)
    reporter.warn = said.extend
    assert update(run, origin(alarms), reporter=reporter).step == 1
    assert (run / "checkpoints/damaged-1").is_dir()
    assert "set aside as damaged-1" in said[0]


def test_names_and_captions_of_the_data_are_recorded_and_used_again(tmp_path, alarms):
    parts = make_parts(tmp_path / "parts", ("disc",))
    (parts / "disc/train/good").rename(parts / "disc/train/prima")
    names = {"good_names": ["prima"]}
    data = jaxad.data.load(f"folder:{parts}", config=DataConfig(good_names=("prima",)))
    provenance = {"holdout": 0.1, **names}
    jaxad.fit(padim(), data.train, workdir=tmp_path / "run", holdout=data.holdout, provenance=provenance)
    with pytest.raises(ConfigError, match="padim learns from none"):
        update(tmp_path / "run", Origin(f"folder:{parts}", captions="x.json"))
    update(tmp_path / "run", origin(alarms), kind="false-alarm")
    first, second = jaxad.restore(tmp_path / "run").meta["data"]["origins"]
    assert (first["names"], second["names"], second["category"]) == (names, {}, "disc")
    ids = [f"disc/train/prima/{number:03}.png" for number in range(12)]
    captions = publish(tmp_path, ids, [f"part {number}" for number in range(12)])
    described = Origin(f"folder:{parts}", names={"good_names": ("prima",)}, captions=str(captions))
    train, _ = load_normal(described, None, None)
    assert [record.caption for record in train.records] == [f"part {int(r.file.stem)}" for r in train.records]


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
