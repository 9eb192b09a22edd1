"""What starts the processes of a run - Slurm, Open MPI, a TPU pod, or a user - and what it tells each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxad.errors import ConfigError

ADDRESS, _NUMBERS = "JAX_COORDINATOR_ADDRESS", ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
AUTO = "auto"
"""JAX_COORDINATOR_ADDRESS where jax finds the others by itself, as on TPU pods of Google's cloud."""
_STARTED = {
    "SLURM_NTASKS": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"),
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_MCA_orte_hnp_uri"),
}
"""What Slurm and Open MPI tell a process: how many there are; its number, that on its machine, and what jax reads the
first one's address from."""


def processes_of(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What the environment says of the processes of a run: arguments of `jax.distributed.initialize`.

    What jax finds out by itself is left out.

    Args:
        environment: variables by name.

    Returns:
        The arguments; None for a process that is alone.

    Raises:
        ConfigError: some variables are missing, or are no numbers.
    """
    address = environment.get(ADDRESS)
    where: dict[str, Any] = {} if address in (None, AUTO) else {"coordinator_address": address}
    if own := {name: environment[name] for name in _NUMBERS if name in environment}:
        known = {name: environment[name] for name in (ADDRESS, *_NUMBERS) if name in environment}
        problems = [f"{name}: missing" for name in (ADDRESS, *_NUMBERS) if name not in known]
        problems += [f"{name} = {value}: must be a number" for name, value in own.items() if not value.isdecimal()]
        if problems:
            told = ", ".join(f"{name}={value}" for name, value in known.items())
            raise ConfigError("\n  ".join([f"environment of a run on several hosts ({told}):", *problems]))
        count, number = (int(own[name]) for name in _NUMBERS)
        return {**where, "num_processes": count, "process_id": number}
    for total, (number, local, first) in _STARTED.items():
        if int(environment.get(total, "1")) > 1:
            if first in environment or address == AUTO:
                return where
            if not where or number not in environment:
                raise ConfigError(_unknown(total, environment[total], first))
            numbers = {"num_processes": int(environment[total]), "process_id": int(environment[number])}
            device = {"local_device_ids": [int(environment[local])]} if local in environment else {}
            return {**where, **numbers, **device}
    if "," in environment.get("TPU_WORKER_HOSTNAMES", "") or address == AUTO:
        return where
    if address is not None:
        raise ConfigError(
            f"{ADDRESS} = {address}: of how many processes, and which this is, nothing says; set "
            f"{' and '.join(_NUMBERS)}, or start them by srun or mpirun"
        )
    return None


def _unknown(total: str, count: str, first: str) -> str:
    """What to say where a launcher has several processes and does not say where the first one is."""
    if total == "SLURM_NTASKS":
        return (
            f"{total} = {count}, but srun has not started this process: write `srun jaxad ...`, or, for one process "
            f"alone, `env -u {total} jaxad ...`"
        )
    return (
        f"{total} = {count}, but Open MPI does not say where the first process is ({first}, which version 5 no longer "
        f"sets): give it by `mpirun -x {ADDRESS}=HOST:PORT`, the first machine and any free port of it"
    )
