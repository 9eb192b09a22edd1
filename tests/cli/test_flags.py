"""Names of parameters in messages become the flags of the command."""

from dataclasses import dataclass
from pathlib import Path

from jaxad.cli._flags import with_flags


@dataclass(frozen=True)
class Settings:
    draws: int = 1
    image_size: int = 8
    seed: int = 0
    trained: bool = False


@dataclass(frozen=True)
class Training:
    steps: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Options:
    shots: int = 0


@dataclass(frozen=True)
class Command:
    out: Path = Path("out")
    batch_size: int = 1
    seed: int = 0
    model: Settings = Settings()
    train: Training = Training()
    options: Options = Options()


def test_parameters_with_values():
    assert with_flags("batch_size = 0: must be at least 1", Command()) == "--batch-size 0: must be at least 1"
    assert with_flags("shots = 1, draws = 2", Command()) == "--shots 1, --model.draws 2"
    assert with_flags("trained = True, trained = False", Command()) == "--model.trained, --model.no-trained"


def test_parameters_by_their_underscore_or_at_the_start_of_a_line():
    assert with_flags("mend it or raise batch_size", Command()) == "mend it or raise --batch-size"
    assert with_flags("draws: is missing\n  steps: too", Command()) == "--model.draws: is missing\n  --train.steps: too"


def test_other_words_stay():
    for text in ("/data/batch_size/a.png: unreadable", "no steps, no draws", "--override seed=3", "a.batch_size = 3"):
        assert with_flags(text, Command()) == text


def test_the_class_that_complains_says_whose_field_it_is():
    text = "this cannot be run:\n  Training cannot be used:\n  seed = -1: too small"
    assert with_flags(text, Command()).endswith("--train.seed -1: too small")
    assert with_flags("seed = -1: too small", Command()) == "--seed -1: too small"
    assert with_flags("Settings cannot be used:\n  seed = -1", Command()).endswith("--model.seed -1")
