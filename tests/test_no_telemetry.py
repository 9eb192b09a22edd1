"""jaxad asks the network for nothing that its user did not name: no telemetry, no version checks, no downloads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GUARD = """
import os, sys

asked = []

def guard(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        found = str(arguments)
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        found = f"{event} {arguments[1]}"
    elif event == "urllib.Request":
        found = arguments[0]
    else:
        return
    asked.append(found)
    raise OSError(f"the network is asked for {found}")

sys.addaudithook(guard)

def sockets():
    # Those of libraries in other languages, which tell Python nothing.
    files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    mine = {os.readlink(file) for file in files if os.path.islink(file)}
    tables = [open(f"/proc/self/net/{kind}").readlines()[1:] for kind in ("tcp", "tcp6", "udp", "udp6")]
    return [line for table in tables for line in table if f"socket:[{line.split()[9]}]" in mine]
"""

DETECTION = """
from pathlib import Path
import jaxad
from jaxad.testing import make_parts, toy_model, toy_training

parts = jaxad.data.load(f"folder:{make_parts('parts')}")
run = jaxad.fit(toy_model(), parts.train, toy_training(steps=2), workdir="run", holdout=parts.holdout)
report = jaxad.evaluate(run.model, parts.test)
assert len(report["classes"]) == 2
assert len(list(jaxad.predict(run.model, ["parts/disc/test/blot/000.png"]))) == 1
"""

LIBRARIES = """
from pathlib import Path
from jaxad.data import load
from jaxad.models.backbone import load_backbone
from jaxad.models.clip.tokenizer import load_tokenizer
from jaxad.testing import make_parts
from tests.data.prepared import prepare
from tests.models.clip.vocabulary import write_tokenizer
from tests.models.vit.made_checkpoints import write_dinov2

write_dinov2(Path("dino"))
load_backbone("dino")
write_tokenizer(Path("clip"))
load_tokenizer("clip")("a photo")
prepare(make_parts(Path("small"), ("disc",), train=6, test=1, size=8), Path("data"))
source = load("own_parts", "data").train
source[0]
"""

END = """
assert not asked, asked
assert not sockets(), sockets()
print("nothing was asked for")
"""


def run(code, folder, **environment):
    """Output of a process in which nothing may use the network."""
    script = folder / "script.py"
    script.write_text(GUARD + code + END)
    free = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    home = {"HOME": str(folder), "HF_HOME": str(folder / "hub"), "PYTHONPATH": paths}
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=folder, env=free | home | environment, capture_output=True, text=True)


@pytest.mark.parametrize("code", [DETECTION, LIBRARIES], ids=["fit, evaluate, predict", "libraries underneath"])
def test_nothing_is_asked_of_the_network(tmp_path, code):
    result = run(code, tmp_path)
    assert result.stdout.endswith("nothing was asked for\n"), result.stdout + result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import socket\ntry: socket.create_connection(('localhost', 9))\nexcept OSError: pass\n",
        "import urllib.request\ntry: urllib.request.urlopen('http://127.0.0.1:9')\nexcept OSError: pass\n",
        pytest.param(
            "import huggingface_hub\ntry: huggingface_hub.list_repo_files('a/b')\nexcept Exception: pass\n",
            # The hub's client tries again and again.
            marks=pytest.mark.slow,
        ),
        "import socket\nwaiting = socket.create_server(('127.0.0.1', 0))\n",
    ],
    ids=["socket", "urllib", "hub", "listening"],
)
def test_the_guard_notices(tmp_path, code):
    result = run(code, tmp_path)
    assert result.returncode == 1
    assert "AssertionError" in result.stderr, result.stderr
