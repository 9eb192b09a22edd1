"""`jaxad bench`: which benchmark runs, with what; the benchmarks have tests of their own."""

from typing import Literal

import pytest

from jaxad import cli
from jaxad.bench import benchmarks
from tests.cli.shell import failure

PROGRAMS = ("prediction", "training", "autoencoder")
DEFAULTS = {
    "metrics": {},
    "input": {},
    "models": {"networks": None, "dtype": "float32", "batch_size": 1},
    "clipfusion": {
        "shots": (0, 1, 2, 4),
        "preset": "default",
        "size": "published",
        "dtype": "auto",
        "batch_size": 1,
        "count_only": False,
        "topology": (),
    },
    "vlmdiff": {
        "devices": (1, 8),
        "micro_batches": (1, 4, 12),
        "remat": ("on",),
        "dtype": "float32",
        "size": "published",
        "count_only": False,
        "programs": PROGRAMS,
        "batch_size": 1,
        "topology": (),
        "first_moment": "float32",
    },
    "dpdiff": {
        "topology": (),
        "programs": ("prediction", "training"),
        "batch_size": None,
        "training_batch_size": None,
        "backbone": None,
        "depth": None,
        "image_size": None,
        "remat": False,
        "dtype": "auto",
        "preset": None,
        "checkpoint": None,
        "largest": False,
        "seconds": 10.0,
    },
}


def settings(*words):
    """The parameters with which the benchmark that the words name would run."""
    return vars(cli.parse(["bench", *words]).options)


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_benchmark_has_its_own_flags(name):
    assert settings(name) == DEFAULTS[name]


def test_every_name_is_that_of_a_benchmark():
    assert all(callable(benchmarks.get(name)) for name in benchmarks.names())


def test_flags_reach_the_benchmark():
    assert settings("models", "--networks", "ResNet-18", "--batch-size", "2")["networks"] == ("ResNet-18",)
    words = ("--shots", "0", "4", "--preset", "winclip", "--size", "one-pass", "--dtype", "float32", "--count-only")
    assert settings("clipfusion", *words) == {
        "shots": (0, 4),
        "preset": "winclip",
        "size": "one-pass",
        "dtype": "float32",
        "batch_size": 1,
        "count_only": True,
        "topology": (),
    }
    words = ("--devices", "8", "--micro-batches", "2", "--remat", "on", "off", "--programs", "prediction")
    found = settings("vlmdiff", *words)
    assert (found["devices"], found["micro_batches"]) == ((8,), (2,))
    assert (found["remat"], found["programs"]) == (("on", "off"), ("prediction",))


def test_flags_of_other_benchmarks_are_refused(refused):
    assert "--shots" in refused("bench", "models", "--shots", "1")
    assert "published" in refused("bench", "vlmdiff", "--size", "one-pass")
    assert "float32" in refused("bench", "vlmdiff", "--dtype", "auto")


def test_flags_that_cannot_work_are_all_named(capsys):
    message = failure(capsys, "bench", "clipfusion", "--batch-size", "0", "--shots", "-1")
    assert "--batch-size 0" in message
    assert "--shots -1" in message
    words = ("--devices", "0", "--micro-batches", "0", "--remat", "--programs")
    message = failure(capsys, "bench", "vlmdiff", *words)
    assert all(flag in message for flag in ("--devices 0", "--micro-batches 0", "--remat:", "--programs:"))


def test_a_benchmark_is_found_by_its_name(monkeypatch, capsys, refused):
    def main(size: Literal["large", "tiny"] = "large", batch_size: int = 1) -> None:
        """Time my detector.

        Args:
            size: Of the networks.
            batch_size: Images at once.
        """
        print(f"{size} {batch_size}")

    monkeypatch.setitem(benchmarks._entries, "mine", main)
    cli.run(cli.parse(["bench", "mine", "--size", "tiny", "--batch-size", "3"]))
    assert capsys.readouterr().out == "tiny 3\n"
    assert "did you mean mine?" in refused("bench", "mien")
