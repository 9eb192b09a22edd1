"""`jaxad fit --config` and `--seeds`: what a run wrote can be read again, flags win, all that is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jaxad import cli
from jaxad.cli.fit import Fit
from jaxad.cli.fit_several import FitSeveral
from jaxad.config import DPDiffConfig, PatchBankConfig, TrainConfig
from jaxad.inference.checkpoint import restore
from jaxad.io.locks import occupied
from jaxad.report.comparison.methods import grouped
from jaxad.report.comparison.results import find_reports, read_results
from jaxad.testing import make_parts
from tests.cli.shell import BANK, failure, jaxad, toy_flags


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"folder:{make_parts(tmp_path_factory.mktemp('work') / 'parts')}"


@pytest.fixture(scope="module")
def seeds(data, tmp_path_factory):
    """Two seeds of a bank."""
    root = tmp_path_factory.mktemp("runs") / "bank"
    flags = ("--categories", "tile", "--false-alarm", 0.1, "--model.bank-size", 50)
    jaxad("fit", "patch-bank", "--data", data, "--workdir", root, *BANK, *flags, "--seeds", 3, 4)
    return root


def parsed(*words: object) -> Fit:
    command = cli.parse([str(word) for word in words])
    assert isinstance(command, Fit)
    return command


def test_what_a_run_wrote_gives_the_same_run_and_flags_win(data, seeds, tmp_path, capsys):
    file = seeds / "seed-3/config.json"
    flags = ("--categories", "tile", "--false-alarm", 0.1, "--model.bank-size", 50, "--model.seed", 3)
    asked = parsed("fit", "patch-bank", "--data", data, "--workdir", tmp_path, *BANK, *flags)
    again = parsed("fit", "--config", file, "--workdir", tmp_path)
    assert replace(again, config=None, model=again.settings()) == replace(
        asked, image_size=None, model=asked.settings()
    )
    other = parsed("fit", f"--config={file}", "--workdir", tmp_path, "--model.neighbors", 2, "--categories", "disc")
    assert (other.model, other.categories) == (replace(again.model, neighbors=2), ("disc",))
    jaxad("fit", "patch-bank", "--config", file, "--workdir", seeds / "seed-3")
    assert "complete; nothing to train" in capsys.readouterr().err


def test_the_run_of_a_warm_start_is_a_path_or_what_a_run_recorded(tmp_path):
    file, words = tmp_path / "config.json", ("fit", "--config", tmp_path / "config.json", "--workdir", "run")
    for given, found in (("runs/a", Path("runs/a")), ({"run": "runs/b", "step": 3}, Path("runs/b")), (None, None)):
        file.write_text(json.dumps({"system": "dpdiff", "data": {"data": "demo"}, "from": given}))
        assert parsed(*words).warm_start == found
    assert parsed(*words, "--from", "runs/c").warm_start == Path("runs/c")


def test_another_step_than_the_one_that_a_run_began_with_is_not_taken(trained, tmp_path, capsys):
    file, words = tmp_path / "config.json", ("fit", "--config", tmp_path / "config.json", "--workdir", "run")
    step = trained.workdir / "checkpoints/12"
    record = {"run": str(trained.workdir), "step": 12, "sha256": restore(step).sha256}
    for run in (trained.workdir, step):
        file.write_text(json.dumps({"system": "dpdiff", "data": {"data": "demo"}, "from": {**record, "run": str(run)}}))
        assert parsed(*words).warm_start == step
    file.write_text(json.dumps({"system": "dpdiff", "data": {"data": "demo"}, "from": {**record, "step": 3}}))
    assert parsed(*words).warm_start == trained.workdir / "checkpoints/3"
    file.write_text(json.dumps({"system": "dpdiff", "data": {"data": "demo"}, "from": {**record, "sha256": "other"}}))
    assert f"from: {step} is another step" in failure(capsys, *words)


def test_a_run_of_before_there_were_loggers_is_read(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"system": "dpdiff", "data": {"data": "demo"}, "train": {"tensorboard": True}}))
    assert parsed("fit", "--config", file, "--workdir", "run").train.loggers == ("tensorboard",)


def test_settings_that_are_left_out_are_those_of_the_preset(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import jaxad\n"
        "def config():\n"
        "    train = jaxad.TrainConfig.preset('small', steps=7)\n"
        "    data = {'data': 'folder:parts', 'holdout': 0.2, 'tile': 448, 'good_names': ('fine',)}\n"
        "    return {'system': 'dpdiff', 'preset': 'small', 'config': {'depth': 3}, 'train': train, 'data': data}\n"
    )
    fit = parsed("fit", "--config", file, "--workdir", "run")
    assert (fit.model, fit.train) == (DPDiffConfig.preset("small", depth=3), TrainConfig.preset("small", steps=7))
    assert (fit.data, fit.holdout, fit.tile, fit.good_names) == ("folder:parts", 0.2, 448, ("fine",))
    assert (fit.preset, fit.protocol, fit.false_alarm) == ("small", "exact-256", 0.01)
    # Epochs of a preset give way to steps, wherever these are given.
    file.write_text("def config():\n    return {'train': {'steps': 20}, 'data': {'data': 'demo'}}\n")
    assert parsed("fit", "vlmdiff", "--config", file, "--workdir", "run").train.epochs is None
    file.write_text("def config():\n    return {'train': {'epochs': 2.5}, 'data': {'data': 'demo'}}\n")
    assert parsed("fit", "vlmdiff", "--config", file, "--workdir", "run").train.epochs == 2.5


def test_records_of_tiles_references_and_captions_are_read(tmp_path):
    def of(system, **record):
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"system": system, "data": {"sha256": {}, "source": "demo/train", **record}}))
        return parsed("fit", "--config", file, "--workdir", "run", "--data", "demo")

    tiled = of("patch-bank", tiles={"side": 448, "overlap": 0.5, "per_image": 3}, regions={"all": {}}, skipped=["a"])
    assert (tiled.tile, tiled.overlap, tiled.tiles_per_image) == (448, 0.5, 3)
    assert of("patch-bank", tiles={"side": 64, "overlap": 0.5, "per_image": "all"}).tiles_per_image is None
    few = of("clipfusion", shots=4, seed=2, reference_lists=None, classes=["nut"])
    assert (few.options.shots, few.options.seed, few.options.classes) == (4, 2, ("nut",))
    assert of("vlmdiff", captions={"source": "texts", "images": 3, "missing": 0}).options.captions == Path("texts")
    assert of("vlmdiff", captions={"source": None, "images": 3, "missing": 0}).options.captions is None


def test_everything_wrong_in_a_file_is_named_at_once(tmp_path, capsys):
    file = tmp_path / "mine.json"
    wrong = {
        "system": "dpdiff",
        "preset": "tiny",
        "configs": {},
        "config": {"depht": 3, "draws": "many"},
        "train": {"steps": 1.5},
        "protocol": "exact",
        "false_alarm": "low",
        "data": {"holdot": 0.1, "categories": "tile", "shots": 3},
    }
    file.write_text(json.dumps(wrong))
    said = failure(capsys, "fit", "patch-bank", "--config", file, "--workdir", tmp_path / "run", "--data", "demo")
    assert f"{file} cannot be used:" in said
    assert "system = 'dpdiff': the command names patch-bank" in said
    said = failure(capsys, "fit", "--config", file, "--workdir", tmp_path / "run", "--data", "demo")
    for part in (
        "configs: no such field in a config; did you mean config?",
        "config.depht: no such field in DPDiffConfig; did you mean depth?",
        "config.draws = 'many': must be of type int",
        "train.steps = 1.5: must be of type int",
        "data.holdot: no such field in data; did you mean holdout?",
        "data.categories = 'tile': must be a list",
        "data.shots: no such field in data",
        "preset = 'tiny': must be one of paper, small",
        "protocol = 'exact': must be one of 'exact-256', 'exact-448'",
        "false_alarm = 'low': must be of type float",
    ):
        assert part in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def config(:\n", "line 1: its code raises SyntaxError"),
        ("def config():\n    return 1 / 0\n", "line 2: config() raises ZeroDivisionError: division by zero"),
        ("x = 1\n", "needs one function, config() of one run or configs() of several"),
        ("def config():\n    return 3\n", "is of type int; must be an object with system"),
        ("def config():\n    return {}\n", "system: is missing; name a detector"),
        ("def config():\n    return {'system': 'dpdif'}\n", "did you mean dpdiff?"),
        ("def config():\n    return {'system': 'padim', 'train': {}}\n", "train: padim is not trained; leave it out"),
        ("def configs():\n    return {'../a': {}, 3: {}}\n", "'../a' (a path out of the folder), 3 (no text)"),
        ("def configs():\n    return {'a': {}, 'a/b': {}}\n", "names lie in the folders of others: a/b"),
        ("def configs():\n    return {'a': {'system': 'padim', 'x': 1}}\n", "a: x: no such field in a config"),
    ],
)
def test_python_that_gives_no_config_is_refused(text, said, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(text)
    words = ("--config", tmp_path / "mine.py", "--data", "demo", "--workdir", tmp_path / "run")
    message = failure(capsys, "fit", *words)
    assert f"{tmp_path / 'mine.py'}" in message
    assert said in message
    assert "no such file" in failure(capsys, "fit", "--config", tmp_path / "none.py", *words[2:])


def test_a_preset_that_changes_nothing_is_refused(seeds, refused):
    said = refused("fit", "--config", str(seeds / "seed-3/config.json"), "--workdir", "run", "--preset", "small")
    assert "--preset changes nothing" in said


def test_each_seed_is_a_run_that_is_found_and_compared(data, seeds, tmp_path, capsys):
    assert sorted(path.name for path in seeds.iterdir()) == ["seed-3", "seed-4"]
    configs = [json.loads((seeds / f"seed-{seed}/config.json").read_text())["config"] for seed in (3, 4)]
    assert [config["seed"] for config in configs] == [3, 4]
    words = ("fit", "--config", seeds / "seed-3/config.json", "--workdir", seeds, "--seeds", 3, 4)
    with occupied(seeds / "seed-4", "workdir"):
        # This thread holds it, so nobody else is at it.
        jaxad(*words)
    said = capsys.readouterr().err
    assert said.count("complete; nothing to train") == 2
    line = next(line for line in said.splitlines() if line.startswith("next: "))
    assert line == f"next: jaxad evaluate --checkpoint {seeds} --data {data} --categories tile --out {seeds}-report"
    jaxad("evaluate", "--checkpoint", seeds, "--data", data, "--categories", "tile", "--out", f"{seeds}-report")
    reports, bare = find_reports([seeds])
    assert bare == []
    ((method,), notes) = grouped(read_results(reports))
    assert (method.name, method.seeds, notes) == ("bank", ("3", "4"), [])


def test_seeds_share_the_features_of_their_images(data, tmp_path, capsys):
    few = ("--model.local-prototypes", 0, "--model.global-prototypes", 0, "--holdout", 0)
    jaxad("fit", "dpdiff", "--data", data, "--workdir", tmp_path / "run", *toy_flags(steps=1), *few, "--seeds", 0, 1)
    said = capsys.readouterr().err
    assert [said.count(line) for line in ("kept in memory", "1 steps of", "done in")] == [1, 2, 2]


def test_every_part_that_draws_gets_the_seed():
    words = ("--workdir", "run", "--data", "demo", "--seeds", "5", "6")
    several = cli.parse(["fit", "dpdiff", *words])
    assert isinstance(several, FitSeveral)
    assert [(name, run.train.seed, run.workdir) for name, run in several.runs.items()] == [
        (f"seed-{seed}", seed, Path(f"run/seed-{seed}")) for seed in (5, 6)
    ]
    several = cli.parse(["fit", "clipfusion", *words, "--shots", "1"])
    assert [run.options.seed for run in several.runs.values()] == [5, 6]


def test_configs_are_runs_by_name_and_have_seeds_too(data, tmp_path):
    file = tmp_path / "sweep.py"
    file.write_text(
        "import jaxad\n"
        "def configs():\n"
        f"    same = {{'backbone': {BANK[1]!r}, 'image_size': {BANK[3]}}}\n"
        f"    data = {{'data': {data!r}}}\n"
        "    return {f'neighbors-{k}': {'config': jaxad.PatchBankConfig(**same, neighbors=k), 'data': data}\n"
        "            for k in (1, 2)} | {'padim': {'system': 'padim', 'config': same, 'data': data}}\n"
    )
    words = ("fit", "--config", file, "--workdir", tmp_path / "runs", "--holdout", 0)
    with pytest.raises(Exception, match="neighbors-1: system: is missing"):
        cli.parse([str(word) for word in words])
    file.write_text(file.read_text().replace("{'config': jaxad", "{'system': 'patch-bank', 'config': jaxad"))
    several = cli.parse([str(word) for word in (*words, "--seeds", 0, 1)])
    names = ("neighbors-1", "neighbors-2", "padim")
    assert isinstance(several, FitSeveral)
    assert list(several.runs) == [f"{name}/seed-{seed}" for name in names for seed in (0, 1)]
    assert several.runs["neighbors-2/seed-1"].model == PatchBankConfig(
        backbone=str(BANK[1]), image_size=56, neighbors=2, seed=1
    )
    jaxad(*words)
    made = [json.loads((tmp_path / "runs" / name / "config.json").read_text()) for name in names]
    assert [one["system"] for one in made] == ["patch-bank", "patch-bank", "padim"]
    assert [one["data"]["holdout"] for one in made] == [0, 0, 0]


def test_runs_that_fail_are_named_when_the_others_are_done(data, tmp_path, capsys):
    file = tmp_path / "sweep.py"
    file.write_text(
        "def configs():\n"
        f"    same = {{'backbone': {BANK[1]!r}}}\n"
        "    made = lambda size: {'system': 'patch-bank', 'config': {**same, 'image_size': size}}\n"
        "    return {'whole': made(56), 'odd': made(50)}\n"
    )
    said = failure(capsys, "fit", "--config", file, "--data", data, "--workdir", tmp_path / "runs")
    assert "1 of 2 runs are done; these failed, the same command tries them again:" in said
    assert "odd: " in said.splitlines()[-1]
    assert "multiple" in said
    assert (tmp_path / "runs/whole/checkpoints").is_dir()


def test_impossible_seeds_and_settings_are_refused_together(data, tmp_path, capsys):
    words = ("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK)
    said = failure(capsys, *words, "--seeds", 1, 1, -2, "--model.neighbors", 0)
    assert "--seeds 1 1 -2: each must be another one" in said
    assert "--seeds -2: must be 0 to" in said
    assert said.count("--model.neighbors 0: must be at least 1") == 1
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there_are_no_failure_of_each_run(tmp_path, capsys):
    words = ("--data", f"folder:{tmp_path}/none", "--workdir", tmp_path / "run", *BANK)
    said = failure(capsys, "fit", "patch-bank", *words, "--seeds", 1, 2)
    assert said.count("no such folder") == 1
    assert "runs are done" not in said
    assert not (tmp_path / "run").exists()


def test_a_run_is_no_folder_of_runs(seeds, data, capsys):
    workdir = seeds / "seed-3"
    said = failure(capsys, "fit", "patch-bank", "--data", data, "--workdir", workdir, *BANK, "--seeds", 1, 2)
    assert f"--workdir {workdir}: is that of one run" in said
