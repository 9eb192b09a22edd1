"""TensorBoard events, in the folder `tensorboard` of the run: `tensorboard --logdir RUN`."""

from __future__ import annotations

from collections.abc import Mapping

from jaxad.training.logger import LoggedRun, register_logger


@register_logger
class TensorBoard:
    """Scalars by tensorboardX. Rows that come once more take the place of those before."""

    name = "tensorboard"
    packages, extra = ("tensorboardX",), "tensorboard"

    def __init__(self, run: LoggedRun):
        from tensorboardX import SummaryWriter  # type: ignore[import-not-found]

        self._writer = SummaryWriter(str(run.workdir / "tensorboard"), purge_step=run.resumed + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, error: BaseException | None) -> None:
        """Closes the file."""
        self._writer.close()
