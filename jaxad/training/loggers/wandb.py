"""Weights & Biases, offline: the folder `wandb` of the run, which `wandb sync` takes to a server when one likes."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Mapping
from typing import Any

from jaxad.io.atomic import write_whole
from jaxad.training.logger import LoggedRun, register_logger

STOPPED = 255
"""Exit status that W&B shows as "killed"; of all others but 0 it shows "failed"."""


@register_logger
class WandB:
    """A run of W&B; its id is that of the workdir's, so that a resumed run goes on in it.

    It is offline unless WANDB_MODE says otherwise, and neither output, code nor machine of the user is recorded.
    """

    name = "wandb"
    packages, extra = ("wandb",), "wandb"

    def __init__(self, run: LoggedRun):
        # By name: this file has the name of the package.
        wandb: Any = importlib.import_module("wandb")
        file = run.workdir / "wandb" / "run-id"
        if not file.is_file():
            write_whole(file, secrets.token_hex(4))
        quiet = {"console": "off", "silent": True, "disable_git": True, "save_code": False}
        private = {"x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True}
        private["x_save_requirements"] = False
        self._run = wandb.init(
            id=file.read_text("utf-8"),
            resume="allow",
            name=run.workdir.name,
            project=os.environ.get("WANDB_PROJECT", "jaxad"),
            dir=run.workdir,
            config=dict(run.settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(**quiet, **private),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row; what is written of one step is one row there."""
        self._run.log(dict(values), step=step)

    def close(self, error: BaseException | None) -> None:
        """Waits until all is on disk, and marks the run as finished, killed or failed."""
        stopped = STOPPED if isinstance(error, KeyboardInterrupt) else 1
        self._run.finish(exit_code=0 if error is None else stopped)
