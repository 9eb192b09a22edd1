"""What `jaxad bench` does: checks the flags and runs the benchmark that they name."""

from __future__ import annotations

from jaxad.cli import flags as cli
from jaxad.cli.checks import count_problems, raise_problems


def bench(command: cli.Bench) -> None:
    """`jaxad bench`.

    Raises:
        ConfigError: flags that cannot work, all of them.
    """
    raise_problems(_problems(command))
    dtype = "bfloat16" if command.dtype == "bfloat16" else "float32"
    # Each needs other libraries, and one says how many devices jax has before jax runs.
    if command.what == "metrics":
        from jaxad.bench import metrics as bench_metrics

        bench_metrics.main()
    elif command.what == "input":
        from jaxad.bench import input as bench_input

        bench_input.main()
    elif command.what == "models":
        from jaxad.bench import models as bench_models

        bench_models.main(command.networks, dtype, command.batch_size)
    elif command.what == "clipfusion":
        from jaxad.bench import clipfusion as bench_clipfusion

        settings = (command.preset, command.size, command.dtype or "auto", command.batch_size, command.count_only)
        bench_clipfusion.main(command.shots, *settings)
    else:
        from jaxad.bench import vlmdiff as bench_vlmdiff

        remat = [word == "on" for word in command.remat]
        size = "tiny" if command.size == "tiny" else "published"
        settings = (dtype, size, command.count_only, command.programs, command.batch_size)
        bench_vlmdiff.main(command.devices, command.micro_batches, remat, *settings)


def _problems(command: cli.Bench) -> list[str]:
    problems = count_problems(command, "batch_size")
    if not command.shots or min(command.shots) < 0:
        problems.append(f"--shots {' '.join(map(str, command.shots))}: needs numbers of at least 0")
    for flag, numbers in (("--devices", command.devices), ("--micro-batches", command.micro_batches)):
        if not numbers or min(numbers) < 1:
            problems.append(f"{flag} {' '.join(map(str, numbers))}: needs numbers of at least 1")
    if not command.programs:
        problems.append("--programs: needs one or more of prediction, training, autoencoder")
    if not command.remat:
        problems.append("--remat: needs on, off or both")
    if command.what in ("models", "vlmdiff") and command.dtype == "auto":
        problems.append(f"--dtype auto: {command.what} has float32 and bfloat16")
    if command.what == "vlmdiff" and command.size == "one-pass":
        problems.append("--size one-pass: vlmdiff has published and tiny")
    return problems
