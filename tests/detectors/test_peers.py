"""What holds for all detectors that DPDiff-AD is measured against."""

import jax
import numpy as np
import pytest

import jaxad
from jaxad.config import TrainConfig
from jaxad.errors import ConfigError, DataError
from jaxad.inference.method import OF_MAPS
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.testing import check_detector
from tests.detectors.peers import PEERS, REMEMBERING, TRAINED, encoded, judged, silent

QUICK = ("linear", "padim", "dinomaly")
"""Those that stand for all in a quick run: each of the others takes ten to thirty seconds to be fitted and judged."""
FITTED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PEERS]


@pytest.fixture(scope="module", params=FITTED)
def fitted(request, parts, tmp_path_factory):
    """A peer, the detector that a run of it gave, and the one that its checkpoint gives."""
    peer, workdir = PEERS[request.param], tmp_path_factory.mktemp(request.param) / "run"
    training = TrainConfig(**peer.training) if peer.training else None
    run = jaxad.fit(peer.make(), parts.train, training, workdir=workdir)
    return peer, run.model, jaxad.restore(workdir).detector


def test_it_keeps_to_the_interface_and_finds_defects(fitted, parts):
    peer, _, restored = fitted
    check_detector(restored, parts.test)
    assert jaxad.evaluate(restored, parts.test)["mean"]["image_auroc"] > peer.auroc


def test_a_checkpoint_gives_back_every_bit(fitted):
    peer, model, restored = fitted
    ours, theirs, first = (module_state.split(each)[1] for each in (model, restored, peer.make()))
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if not np.array_equal(ours[path], theirs[path])] == []
    assert [path for path in ours if not np.array_equal(ours[path], first[path])]
    assert (restored.config, restored.categories) == (model.config, model.categories)


def test_it_has_pictures_of_features_and_terms_where_it_reconstructs(fitted):
    peer, model, _ = fitted
    reconstructs = peer.detector.name not in ("padim", "patch-bank", "simplenet")
    assert Predictor(model).words == (*OF_MAPS, "input", *(("features", "terms") if reconstructs else ()))


def test_a_judgement_is_always_the_same(fitted, parts):
    _, model, restored = fitted
    features = encoded(model, parts.test)
    np.testing.assert_array_equal(judged(model, features).maps, judged(restored, features).maps)


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_all_and_chance_is_of_the_key_alone(name, parts):
    model = PEERS[name].make()
    features = encoded(model, parts.train)
    assert silent(model, lambda model: model.loss(features, jax.random.key(0))[0]) == set()
    one, same = (float(model.loss(features, jax.random.key(0))[0]) for _ in range(2))
    assert one == same


def test_features_are_shared_where_they_are_the_same_and_nowhere_else():
    blocks = {"dinomaly": {}, "inp-former": {}, "rd4ad": {"blocks": (0, 1, 2, 3), "depths": (1,) * 4}, "vitad": {}}
    others = {name: PEERS[name].make(**changes) for name, changes in blocks.items()}
    others |= {"four groups": PEERS["dinomaly"].make(groups=4), "one neck": PEERS["vitad"].make(neck=(3,))}
    identities = {repr(model.inputs.identity) for model in others.values()}
    assert len(identities) == len(others)
    means = {repr(PEERS[name].make().inputs.identity) for name in PEERS.keys() - blocks.keys()}
    assert len(means) == 1
    assert not means & identities
    shuffled = PEERS["dinomaly"].make(blocks=(3, 1, 2, 0))
    assert repr(shuffled.inputs.identity) in identities


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_knows_nothing_says_so(name, parts):
    with pytest.raises(ConfigError, match=f"{name}.*remember"):
        jaxad.predict(PEERS[name].make(), parts.test.records[0].file)
    with pytest.raises(DataError, match="no normal images"):
        PEERS[name].make().remember(parts.train.select([]))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("linear", {"start_timestep": 1000, "draws": 0, "image_size": 0}),
        ("padim", {"regularization": 0.0, "dimensions": 0}),
        ("patch-bank", {"bank_size": 0, "neighbors": 5000}),
        ("dinomaly", {"depth": 5, "dropout": 1.0, "easy_share": 1.0, "easy_steps": 0, "easy_gradient": -1.0}),
        ("inp-former", {"depth": 5, "prototypes": 0, "coherence": -1.0, "mining": -1.0}),
        ("rd4ad", {"depths": (1, 0), "embedding_depth": 0}),
        ("vitad", {"neck": (2, 2), "depth": 0}),
        ("vitad", {"neck": ()}),
        ("simplenet", {"neighborhood": 2, "noise": 0.0, "hidden": 0, "margin": -1.0}),
        ("uniad", {"width": 18, "neighborhood": 4, "dropout": 1.0, "jitter": -1.0}),
        ("hvq-trans", {"width": 18, "entries": 0, "dropout": 1.0, "commitment": -1.0, "transport": -1.0}),
    ],
)
def test_settings_that_cannot_work_are_all_listed(name, changes):
    with pytest.raises(ConfigError, match="cannot be used") as error:
        PEERS[name].make(**changes)
    assert [field for field, value in changes.items() if f"{field} = {value}" not in str(error.value)] == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dinomaly", {"blocks": (0, 1, 2), "heads": 3}),
        ("inp-former", {"blocks": (0, 1, 2), "heads": 3}),
        ("rd4ad", {"image_size": 70, "depths": (1, 1)}),
        ("vitad", {"depth": 5, "heads": 3, "neck": (4,)}),
        ("uniad", {"neighborhood": 7}),
        *((name, {"backbone": "random:resnet18"}) for name in ("dinomaly", "inp-former", "rd4ad", "vitad")),
    ],
)
def test_settings_that_do_not_fit_the_backbone_are_all_listed(name, changes):
    fits = {"image_size": 64, "blocks": (0, 1)} if "backbone" in changes else {}
    with pytest.raises(ConfigError, match="does not fit its backbone") as error:
        PEERS[name].make(**fits | changes)
    assert [field for field, value in changes.items() if f"{field} = {value}" not in str(error.value)] == []


@pytest.mark.parametrize("name", ["dinomaly", "inp-former", "vitad"])
def test_usual_heads_divide_every_width(name):
    model = PEERS[name].make(backbone="random:200x4", heads=None, mlp_ratio=1.0, depth=2)
    assert model.channels == 200
    assert model.heads == 2


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("dinomaly", (10_000, 16, 2e-3, 1e-4, 0.1, "stable-adamw")),
        ("inp-former", (45_200, 16, 1e-3, 1e-4, 0.1, "stable-adamw")),
        ("rd4ad", (45_400, 16, 5e-3, 0.0, 0.0, "adam")),
        ("vitad", (45_400, 8, 1e-4, 1e-4, 0.0, "adam")),
        ("simplenet", (72_600, 8, 2e-4, 1e-5, 0.0, "adam")),
        ("uniad", (56_700, 64, 1e-4, 1e-4, 0.1, "adam")),
        ("hvq-trans", (226_800, 16, 1e-4, 1e-4, 0.1, "adam")),
    ],
)
def test_every_preset_has_a_training(name, paper):
    config = PEERS[name].detector.config_class
    fields = ("steps", "batch_size", "learning_rate", "weight_decay", "clip_norm", "optimizer")
    training = config.training()
    assert tuple(getattr(training, field) or 0.0 for field in fields) == paper
    assert tuple(config.TRAININGS) == config.presets() == ("paper", "small")
    small = config.training("small", steps=100)
    assert (small.steps, small.batch_size, small.schedule, small.sampling) == (100, 16, "cosine", "even")
    for each in (*map(config.preset, config.presets()), training, small):
        each.check()
    with pytest.raises(ConfigError, match="large"):
        config.training("large")
