"""Compiled programs are kept for the next process, unless the user says otherwise."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from jaxad.io import program_cache
from jaxad.testing import make_parts

ROOT = Path(__file__).parents[2]
WORK = """
import json, sys
from jaxad import cli
from tests.compilations import counted
root, out = sys.argv[1:]
toy = ["--model.backbone", "random:32x2", "--model.depth", "1", "--model.heads", "2", "--model.local-prototypes", "0",
       "--model.global-prototypes", "0", "--image-size", "28", "--train.steps", "2", "--train.batch-size", "4"]
with counted() as counts:
    for words in (
        ["fit", "dpdiff", "--data", f"folder:{root}", "--workdir", f"{out}/run", *toy],
        ["evaluate", "--checkpoint", f"{out}/run", "--data", f"folder:{root}", "--out", f"{out}/report"],
        ["predict", f"{root}/disc/test/good", "--checkpoint", f"{out}/run", "--out", f"{out}/predictions"],
    ):
        cli.run(cli.parse(words))
print(json.dumps(counts))
"""


def environment(**changes):
    own = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    return own | {"PYTHONPATH": str(ROOT)} | changes


def test_a_second_process_compiles_nothing(tmp_path):
    make_parts(tmp_path / "parts", ("disc",), train=12, test=2, size=28)
    counts = []
    for name in ("first", "second"):
        command = [sys.executable, "-c", WORK, str(tmp_path / "parts"), str(tmp_path / name)]
        done = subprocess.run(
            command, env=environment(XDG_CACHE_HOME=str(tmp_path)), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        counts.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = counts
    assert first["misses"] > 10
    assert second.get("misses", 0) == 0
    assert second["hits"] == second["programs"]


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "xdg/jaxad/"),
        ({"JAXAD_COMPILATION_CACHE": "named"}, "named/"),
        ({"JAXAD_COMPILATION_CACHE": "off"}, None),
        ({"JAX_COMPILATION_CACHE_DIR": "mine"}, "mine"),
    ],
)
@pytest.mark.parametrize("imported", [False, True], ids=["before jax", "after jax"])
def test_the_user_has_the_last_word(tmp_path, variables, folder, imported):
    script = (
        f"{'import jax' if imported else ''}\n"
        "from jaxad.io.program_cache import keep_programs; keep_programs()\n"
        "import jax; print(jax.config.jax_compilation_cache_dir)"
    )
    paths = {name: value if value == "off" else str(tmp_path / value) for name, value in variables.items()}
    env = environment(XDG_CACHE_HOME=str(tmp_path / "xdg"), **paths)
    found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    if folder is None:
        assert found.stdout.strip() == "None"
        assert not (tmp_path / "xdg").exists()
    else:
        assert found.stdout.startswith(str(tmp_path / folder))


def test_importing_jaxad_changes_nothing(tmp_path):
    script = "import jaxad, jax; jaxad.fit; jaxad.predict; print(jax.config.jax_compilation_cache_dir)"
    env = environment(XDG_CACHE_HOME=str(tmp_path))
    found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"
    assert list(tmp_path.iterdir()) == []


def test_each_number_of_cpus_has_its_own_programs(tmp_path, monkeypatch):
    def folder(allowed, variable=None):
        monkeypatch.setattr(program_cache, "cpus", lambda: allowed)
        monkeypatch.delenv("NPROC", raising=False)
        if variable:
            monkeypatch.setenv("NPROC", variable)
        return program_cache._prepared.__wrapped__()

    monkeypatch.setenv("JAXAD_COMPILATION_CACHE", str(tmp_path))
    assert folder(2) == folder(2) == folder(8, "2")
    assert len({folder(1), folder(2), folder(2, "3")}) == 3


def test_programs_cut_off_are_removed(tmp_path):
    whole = zlib.compress(bytes(range(256)) * 40)
    for name, content in {"whole": whole, "cut": whole[:-3], "empty": b""}.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    program_cache._remove_cut_off(tmp_path)
    assert [file.name for file in tmp_path.glob("*-cache")] == ["whole-cache"]
    # What was found whole is not read again.
    os.utime(tmp_path / "checked")
    (tmp_path / "whole-cache").write_bytes(whole[:-3])
    os.utime(tmp_path / "whole-cache", ns=(0, 0))
    program_cache._remove_cut_off(tmp_path)
    assert (tmp_path / "whole-cache").exists()


def test_programs_unused_for_long_are_removed_whatever_they_were_for(tmp_path, monkeypatch):
    for number in range(4):
        file = tmp_path / f"programs-{number % 2}" / f"{number}-cache"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_bytes(bytes(1000))
        os.utime(file, ns=(10**9 * number, 10**9 * number))
    monkeypatch.setattr(program_cache, "LIMIT", 2000)
    monkeypatch.setenv("JAXAD_COMPILATION_CACHE", str(tmp_path))
    # What a process that was killed has left is not among them.
    monkeypatch.setattr(program_cache, "_remove_cut_off", lambda folder: None)
    assert program_cache._prepared.__wrapped__()
    assert {file.name for file in tmp_path.rglob("*-cache")} == {"2-cache", "3-cache"}
