"""Errors of others, as they are raised, and the lines that a user reads."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import ConfigError, MachineError
from jaxad.io.foreign import check_environment, explained, raise_explained


def of_system(number: int, file: str | None = "/data/x") -> OSError:
    return OSError(number, os.strerror(number), file)


def raised(function) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("raises nothing")


def wrapped(cause: BaseException) -> BaseException:
    def run():
        raise ValueError("cannot be read") from cause

    return raised(run)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (of_system(errno.ENOSPC), ["/data/x", "full", "room"]),
        (of_system(errno.ENOSPC, None), ["full"]),
        (of_system(errno.EDQUOT), ["/data/x", "quota"]),
        (of_system(errno.EROFS), ["/data/x", "read-only"]),
        (of_system(errno.EACCES), ["/data/x", "permission"]),
        (of_system(errno.EMFILE), ["open files", "ulimit -n"]),
        (of_system(errno.ENAMETOOLONG), ["/data/x", "too long"]),
        (of_system(errno.EIO), ["/data/x", "fails"]),
        (of_system(errno.ESTALE), ["/data/x", "mount"]),
        (
            ValueError("RESOURCE_EXHAUSTED: Error writing [OS error 28: ENOSPC No space left on device]"),
            ["disk", "full"],
        ),
        (ValueError('PERMISSION_DENIED: "/run/x" [OS error 13: EACCES Permission denied]'), ["/run/x", "owner"]),
        (wrapped(of_system(errno.ENOSPC)), ["/data/x", "full"]),
        (RuntimeError("can't start new thread"), ["workers"]),
        (MemoryError(), ["memory", "batch_size"]),
        (raised(lambda: np.zeros(2**50)), ["PiB", "batch_size"]),
        (raised(lambda: jnp.zeros(2**45)), ["memory of the device", "batch_size"]),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), ["cv2", "pip install"]),
        (ImportError("libGL.so.1: cannot open shared object file", name="cv2"), ["cv2", "libGL.so.1"]),
        (raised(lambda: np.no_such_thing), ["numpy", "half installed"]),
        (ValueError("numpy.dtype size changed, may indicate binary incompatibility"), ["fit"]),
        (SyntaxError("invalid syntax", ("/site-packages/flax/core.py", 1, 1, "", 1, 1)), ["flax/core.py", "again"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else f"{type(value).__name__}: {str(value)[:40]}",
)
def test_a_line_says_what_is_wrong_and_what_to_do(error, words):
    text = explained(error)
    assert text is not None
    assert "\n" not in text
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    "error",
    [
        KeyError("params"),
        TypeError("lax.mul requires arguments to have the same dtypes"),
        AssertionError(),
        ValueError("operands could not be broadcast"),
        AttributeError("module 'jaxad.data' has no attribute 'lode'"),
        ImportError("cannot import name 'lode' from 'jaxad.data'", name="jaxad.data"),
        of_system(errno.ENOENT),
    ],
    ids=repr,
)
def test_anything_else_is_not_explained_away(error):
    assert explained(error) is None
    raise_explained(error)


def test_what_is_called_damaged_otherwise_is_not():
    with pytest.raises(MachineError, match=r"/data/x.*permission"):
        raise_explained(of_system(errno.EACCES))


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_missing_device_is_named(platform):
    code = "import jax\nfrom jaxad.io.foreign import explained\ntry: jax.devices()\n"
    code += "except Exception as error: print(explained(error))\nelse: print('there is one')"
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(("there is one", f"JAX_PLATFORMS={platform}: "))
    assert platform == "cuda" or "JAX_PLATFORMS=nonsense" in said.stdout


def test_a_folder_of_compiled_programs_that_cannot_be(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"JAX_COMPILATION_CACHE_DIR=.*file/cache"):
        check_environment()
    for fine in (str(tmp_path / "new"), "gs://bucket/cache"):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", fine)
        check_environment()
    assert (tmp_path / "new").is_dir()
