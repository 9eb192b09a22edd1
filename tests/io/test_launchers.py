import pytest

from jaxad.errors import ConfigError
from jaxad.io.launchers import processes_of

WHERE = {"JAX_COORDINATOR_ADDRESS": "host0:1234"}
SLURM = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
POD = {"TPU_WORKER_HOSTNAMES": "t0,t1"}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "t0"}, None),
        (SLURM | {"SLURM_STEP_NODELIST": "node[01-02]"}, {}),
        (SLURM | WHERE | {"SLURM_STEP_NODELIST": "node[01-02]"}, {"coordinator_address": "host0:1234"}),
        (MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:2"}, {}),
        # Version 5 of Open MPI.
        (
            MPI | WHERE,
            {"coordinator_address": "host0:1234", "num_processes": 4, "process_id": 3, "local_device_ids": [1]},
        ),
        (POD, {}),
        ({"JAX_COORDINATOR_ADDRESS": "auto"}, {}),
        (
            WHERE | {"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"},
            {"coordinator_address": "host0:1234", "num_processes": 2, "process_id": 1},
        ),
    ],
)
def test_who_starts_the_processes_says_how_many_and_which(environment, expected):
    assert processes_of(environment) == expected


@pytest.mark.quick
@pytest.mark.parametrize(
    ("environment", "told"),
    [
        # In a batch script, before srun.
        (SLURM, "SLURM_NTASKS = 2, but srun has not started this process: write `srun jaxad"),
        (MPI, "mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        (WHERE, "set JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "1"}, "JAX_COORDINATOR_ADDRESS: missing\n  JAX_NUM_PROCESSES: missing"),
    ],
)
def test_an_environment_that_says_half_of_it_is_refused(environment, told):
    with pytest.raises(ConfigError) as error:
        processes_of(environment)
    assert told in str(error.value)
