"""Arrays of a step: what they are said to be, compared with what is expected, and then read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from jaxad.detector import Detector
from jaxad.errors import CheckpointError
from jaxad.inference.steps import Step
from jaxad.io.foreign import raise_explained
from jaxad.nn import module_state
from jaxad.nn.variables import Memory, Statistic

LEAST_BOUND, RATIO = 1_000_000_000, 1000
"""An item may say that its arrays have so many bytes, or so many times those that it has on disk, whichever is more."""


def declared(step: Step, item: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the arrays of an item that `Step.check` found whole, by path; no array is read.

    Raises:
        CheckpointError: cannot be told, or more than the item's files can hold.
    """
    try:
        tree: Any = ocp.PyTreeCheckpointHandler().metadata(step.folder / item).tree  # type: ignore[arg-type]
        found = {path: jax.ShapeDtypeStruct(tuple(a.shape), np.dtype(a.dtype)) for path, a in dict(tree).items()}
    except Exception as error:  # Orbax raises whatever its storage raises.
        raise_explained(error)
        raise _unreadable(step.folder / item, error) from error
    size = sum(int(np.prod(a.shape, dtype=object)) * a.dtype.itemsize for a in found.values())
    if size > max(LEAST_BOUND, RATIO * step.size(item)):
        raise CheckpointError(
            f"{step.folder / item}: says that its arrays have {size:,} bytes, which {step.size(item):,} bytes on disk "
            "cannot hold; take a checkpoint from where you trust it"
        )
    return found


def check_fit(abstract: Detector, arrays: Mapping[str, Any], folder: Path) -> None:
    """Compares arrays with a detector's: all of its own must be there, in its shapes; memories may have any length.

    Args:
        abstract: the detector without arrays.
        arrays: by path; shape and dtype are enough.
        folder: that they are from.

    Raises:
        CheckpointError: lists every difference.
    """
    _, memories, others = module_state.split(abstract, Memory, ...)
    expected = memories | others
    problems = [f"missing array {path}" for path in expected.keys() - arrays.keys()]
    problems += [f"unknown array {path}" for path in arrays.keys() - expected.keys()]
    for path in sorted(others.keys() & arrays.keys()):
        found, wanted = arrays[path], others[path]
        if found.shape != wanted.shape:
            problems.append(f"{path}: shape {found.shape}, expected {wanted.shape}")
        elif found.dtype != wanted.dtype:
            problems.append(f"{path}: {found.dtype}, expected {wanted.dtype}")
    if problems:
        raise CheckpointError("\n".join([f"{folder} does not fit its config:", *(f"  {p}" for p in sorted(problems))]))


def read_arrays(step: Step, item: str) -> dict[str, Any]:
    """The arrays by path of an item that `Step.check` found whole; no process waits for another.

    Raises:
        CheckpointError: they cannot be read although they are.
    """
    try:
        # Not by a Checkpointer, which waits for all processes: one that cannot read would leave the others waiting.
        with closing(ocp.PyTreeCheckpointHandler()) as reader:
            # As numpy arrays: a checkpoint is not always read on the devices that wrote it.
            tree: Any = reader.metadata(step.folder / item).tree  # type: ignore[arg-type]
            as_numpy = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in tree}
            arrays: Any = reader.restore(step.folder / item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))  # type: ignore[arg-type]
    except Exception as error:
        raise_explained(error)
        raise _unreadable(step.folder / item, error) from error
    return {path: jnp.asarray(array) for path, array in arrays.items()}


def read_statistics(step: Step, detector: Detector) -> None:
    """Gives a detector the statistics and memories of a step.

    Raises:
        DamagedError: the step is not what was written.
        CheckpointError: it is of another detector, or cannot be read.
    """
    found = {path: node for path, node in nnx.iter_graph(detector) if isinstance(node, Statistic | Memory)}
    step.check("model")
    stored = read_arrays(step, "model") if found else {}
    for path, variable in found.items():
        name = "/".join(map(str, path))
        if name not in stored:
            raise CheckpointError(f"{step.folder}: holds no {name}; it is of another detector")
        variable.set_value(stored[name])


def read_training(step: Step, like: Any) -> Any:
    """The `training` pytree of a step, on the devices and with the sharding of `like`.

    Raises:
        DamagedError: it is not what was written.
        CheckpointError: it is of another training, or cannot be read.
    """
    step.check("training")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            return reader.restore(step.folder / "training", args=ocp.args.StandardRestore(abstract))
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise_explained(error)
        raise CheckpointError(f"{step.folder}: does not hold this run's optimizer state: {error}") from error


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder}: cannot be read though its files are whole: {type(error).__name__}: {error}")
