"""Two tasks of Slurm, which here are two processes of one machine with the variables that Slurm sets."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from jaxad.inference.checkpoint import read_meta
from jaxad.testing import make_parts
from tests.test_parallel import assert_noticed

FIT = (
    "fit dpdiff --workdir runs/hosts --preset small --model.backbone random:32x2 --model.image-size 56 --train.steps 2"
)


def srun(folder: Path, *commands: str) -> list[tuple[int, str]]:
    """Starts a command as each task, as `srun` does; exit status of each and what it wrote to stderr."""
    # Of the number of the job jax makes a port.
    job = {"SLURM_JOB_ID": str(random.randrange(10**6)), "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    tasks = []
    for number, command in enumerate(commands):
        own = {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "XLA_FLAGS": flags, "PYTHONPATH": paths}
        words = [sys.executable, "-m", "jaxad", *command.split()]
        environment = os.environ | job | own
        tasks.append(subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        said = [task.communicate(timeout=500)[1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    return [(task.returncode, text) for task, text in zip(tasks, said, strict=True)]


@pytest.fixture
def folder(tmp_path) -> Path:
    make_parts(tmp_path / "parts", ("bottle",))
    return tmp_path


@pytest.mark.slow
def test_tasks_of_slurm_are_one_run(folder):
    first, second = srun(folder, *2 * [f"{FIT} --data folder:parts"])
    assert (first[0], second[0]) == (0, 0), f"{first[1]}\n{second[1]}"
    assert read_meta(folder / "runs/hosts")["step"] == 2
    assert "next: jaxad evaluate" in first[1]
    assert "next:" not in second[1]


@pytest.mark.slow
def test_a_host_without_data_is_named_by_all(folder):
    first, second = srun(folder, f"{FIT} --data folder:parts", f"{FIT} --data folder:elsewhere")
    assert (first[0], second[0]) == (1, 1)
    assert "process 1 of 2 on" in first[1]
    assert "elsewhere: no such folder" in first[1]
    assert "elsewhere: no such folder" in second[1]
    assert not (folder / "runs/hosts/checkpoints").exists()


@pytest.mark.slow
def test_a_host_with_other_images_is_named_by_all(folder):
    make_parts(folder / "other/parts", ("bottle",), train=13)
    tasks = srun(folder, f"{FIT} --data folder:parts", f"{FIT} --data folder:other/parts")
    for status, said in tasks:
        assert status == 1, said
        assert "of process 1 are others than those of process 0" in said


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_bug_in_one_task_ends_the_other(folder, who):
    """While the one waits for the other in vain; the traceback is the one's own."""
    (folder / "sitecustomize.py").write_text(_BUG % who)
    tasks = srun(folder, *2 * [f"{FIT} --data folder:parts"])
    assert tasks[who][0] == 1, tasks
    assert "This is a bug of jaxad" in tasks[who][1]
    assert "ZeroDivisionError" in tasks[who][1]
    assert_noticed(*tasks[1 - who], 1 - who)


_BUG = """
import os
if os.environ.get("SLURM_PROCID") == "%d":
    from jaxad.training import step
    def fails(*_): 1 // 0
    step.DetectorTrainer.step = fails
"""
