"""`jaxad bench`: which benchmark runs, with what; the benchmarks have tests of their own."""

import pytest

from jaxad import cli
from jaxad.cli import commands
from jaxad.errors import ConfigError

PROGRAMS = ("prediction", "training", "autoencoder")
DEFAULTS = {
    "metrics": (),
    "input": (),
    "models": (None, "float32", 1),
    "clipfusion": ((0, 1, 2, 4), "clipfusion", "published", "auto", 1, False),
    "vlmdiff": ((1, 8), (1, 4, 12), [True], "float32", "published", False, PROGRAMS, 1),
}


def asked(monkeypatch, *words):
    """The settings with which the benchmark that the command names is called."""
    calls = []
    monkeypatch.setattr(f"jaxad.bench.{words[0]}.main", lambda *settings: calls.append(settings))
    commands.run(cli.parse(["bench", *words]))
    (settings,) = calls
    return settings


@pytest.mark.parametrize("what", DEFAULTS)
def test_each_benchmark_runs_with_its_settings(monkeypatch, what):
    assert asked(monkeypatch, what) == DEFAULTS[what]


def test_flags_reach_the_benchmark(monkeypatch):
    words = ("--networks", "ResNet-18", "--dtype", "bfloat16", "--batch-size", "2")
    assert asked(monkeypatch, "models", *words) == (("ResNet-18",), "bfloat16", 2)
    words = ("--shots", "0", "4", "--preset", "winclip", "--size", "one-pass", "--dtype", "float32", "--count-only")
    assert asked(monkeypatch, "clipfusion", *words) == ((0, 4), "winclip", "one-pass", "float32", 1, True)
    words = ("--devices", "8", "--micro-batches", "2", "--remat", "on", "off", "--size", "tiny", "--count-only")
    settings = ((8,), (2,), [True, False], "float32", "tiny", True)
    assert asked(monkeypatch, "vlmdiff", *words) == (*settings, PROGRAMS, 1)
    words = (*words, "--programs", "prediction", "--batch-size", "16")
    assert asked(monkeypatch, "vlmdiff", *words) == (*settings, ("prediction",), 16)


def test_flags_that_cannot_work_are_all_named():
    words = ["--batch-size", "0", "--shots", "-1", "--devices", "0", "--micro-batches", "0"]
    with pytest.raises(ConfigError) as error:
        commands.run(cli.parse(["bench", "models", *words]))
    assert all(f"{flag} {value}" in str(error.value) for flag, value in zip(words[::2], words[1::2], strict=True))
    with pytest.raises(ConfigError, match="--programs: needs one or more"):
        commands.run(cli.parse(["bench", "vlmdiff", "--programs"]))
    with pytest.raises(ConfigError, match=r"--dtype auto: vlmdiff[\s\S]*one-pass"):
        commands.run(cli.parse(["bench", "vlmdiff", "--size", "one-pass", "--dtype", "auto"]))
