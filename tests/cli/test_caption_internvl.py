"""`jaxad caption` with a small InternVL: by one process, in shards, and by the two processes of one run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.shell import failure, jaxad
from tests.models.captioner import made_checkpoints as made

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The command without `--out`."""
    shop = tmp_path_factory.mktemp("shop")
    made.write_internlm2(shop / "InternVL2-Small")
    parts = made.varied_parts(shop / "parts", 7)
    options = ("--max-new-tokens", "12", "--batch-size", "2", "--prompt", "describe this part")
    return ("caption", "--data", f"folder:{parts}", "--model", str(shop / "InternVL2-Small"), *options)


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """The files of one process."""
    out = tmp_path_factory.mktemp("whole")
    jaxad(*words, "--out", out)
    return files(out)


def files(out):
    (folder,) = out.iterdir()
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_captions_and_no_torch(words, whole):
    captions = json.loads(next(text for name, text in whole.items() if name.startswith("train_captions")))
    assert len(captions) == 7
    assert len(set(captions)) > 1
    assert sorted(whole) == [
        "captioner.json",
        "train_captions_parts_internvl2-small.json",
        "train_labels_parts_internvl2-small.json",
    ]
    program = "import sys; from jaxad.detectors.vlmdiff import internvl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_shards_give_the_files_of_one(words, whole, tmp_path, capsys):
    jaxad(*words, "--out", tmp_path, "--shard", "1/2")
    assert "shard 1/2 is done; others are not yet" in capsys.readouterr().out
    jaxad(*words, "--out", tmp_path, "--shard", "0/2")
    assert "7 captions" in capsys.readouterr().out
    assert files(tmp_path) == whole


def test_flags_that_cannot_be(words, tmp_path, capsys):
    assert "--shard 2/2: must be a number from 0" in failure(capsys, *words, "--out", tmp_path, "--shard", "2/2")
    assert "--shard" in failure(capsys, *words, "--out", tmp_path, "--shard", "0/5")
    assert "--fsdp 0: must be at least 1" in failure(capsys, *words, "--out", tmp_path, "--fsdp", 0)
    assert "--batch-size 3: must be a multiple" in failure(capsys, *words, "--out", tmp_path, "--batch-size", 3)


@pytest.mark.slow
def test_two_processes_of_one_run_give_the_files_of_one(words, whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    names = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "jaxad", *words, "--out", str(tmp_path)]
    runs = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **names, "JAX_PROCESS_ID": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    errors = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert files(tmp_path) == whole
