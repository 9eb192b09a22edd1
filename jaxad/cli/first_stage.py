"""What `jaxad fit autoencoder` and `jaxad caption` do, the steps that come before VLMDiff's training."""

from __future__ import annotations

import dataclasses

from jaxad.cli import flags as cli
from jaxad.cli.checks import command_line, count_problems, data_flags, fit_problems, load_data, raise_problems, skipped
from jaxad.config import FirstStageConfig, VLMDiffConfig
from jaxad.errors import ConfigError
from jaxad.io.progress import Reporter


def fit_autoencoder(command: cli.FitAutoencoder) -> None:
    """`jaxad fit autoencoder`."""
    from jaxad import parallel
    from jaxad.training.autoencoder import trainer as autoencoder_training

    config = command.model
    if command.image_size is not None:
        config = dataclasses.replace(config, image_size=command.image_size)
    raise_problems(fit_problems(command, config))

    parallel.start_processes()
    reporter = Reporter(quiet=not parallel.is_main_process())
    dataset = load_data(command, command.holdout)
    reporter.warn([str(problem) for problem in dataset.problems])
    steps, kept = command.train.steps_for(len(dataset.train)), len(dataset.holdout)
    reporter.say(f"{len(dataset.train)} images ({kept} kept out), {steps} steps of {command.train.images} images")
    run = autoencoder_training.fit_autoencoder(
        dataset.train,
        config,
        command.train,
        workdir=command.workdir,
        provenance={"holdout": command.holdout, "preset": command.preset, "skipped": skipped(dataset)},
        workers=command.workers,
        reporter=reporter,
    )
    before, after = run.errors
    reporter.say(f"mean absolute error of reconstructions: {before:.2f} before, {after:.2f} after, of 255 gray levels")
    reporter.say(f"see {command.workdir / autoencoder_training.PICTURE}: images, before, after")
    factor = run.autoencoder.config.scaling_factor
    origin = "measured" if config.measures_scale else f"that of {config.source}"
    reporter.say(f"scaling factor of the latents: {factor:.5g} ({origin}), in {run.folder / 'config.json'}")
    words = (*data_flags(command), "--workdir", "runs/vlmdiff", *_second_stage(command, config))
    words = (*words, "--model.autoencoder", run.folder)
    reporter.say(f"next: {command_line('fit', 'vlmdiff', *words)}")


def _second_stage(command: cli.FitAutoencoder, config: FirstStageConfig) -> tuple[object, ...]:
    """Flags of `jaxad fit vlmdiff` that make it see the images that this autoencoder does, as it does."""
    preset = () if command.preset == "paper" else ("--preset", command.preset)
    second = VLMDiffConfig.preset(command.preset)
    size = () if config.image_size == second.image_size else ("--image-size", config.image_size)
    holdout = () if command.holdout == cli.FitVLMDiff.holdout else ("--holdout", command.holdout)
    return (*preset, *holdout, *size, *(() if config.pixels == "imagenet" else ("--model.pixels", config.pixels)))


def caption(command: cli.Caption) -> None:
    """`jaxad caption`."""
    from jaxad.detectors.vlmdiff import captioning
    from jaxad.models.captioner.hugging_face import HuggingFaceCaptioner

    raise_problems(count_problems(command, "batch_size", "max_new_tokens", "workers"))
    prompt = captioning.prompt_text(command.prompt)
    if not prompt.strip():
        raise ConfigError("--prompt: is empty; give pd, pa, coco or a text")
    reporter = Reporter()
    dataset = load_data(command)
    reporter.warn([str(problem) for problem in dataset.problems])
    source = getattr(dataset, command.split)
    with reporter.images("caption", len(source)) as progress:
        found = captioning.caption(
            source,
            lambda: HuggingFaceCaptioner(command.model, prompt, max_new_tokens=command.max_new_tokens),
            out_dir=command.out,
            data=command.data,
            model=command.model,
            prompt=command.prompt,
            split=command.split,
            max_new_tokens=command.max_new_tokens,
            categories=command.categories,
            batch_size=command.batch_size,
            workers=command.workers,
            progress=progress,
        )
    if found.empty:
        listed = ", ".join(found.empty[:5]) + (f" and {len(found.empty) - 5} more" if len(found.empty) > 5 else "")
        reporter.warn([f"{len(found.empty)} captions are empty: {listed}"])
    words = sum(len(text.split()) for text in found.captions.texts) / len(found.captions)
    print(f"{found.folder}: {len(found.captions)} captions of {words:.0f} words on average, in the data set's order")
    own = (*data_flags(command), "--captions", found.folder)
    if command.split == "train":
        print(f"next: {command_line('fit', 'vlmdiff', *own, '--workdir', 'runs/vlmdiff')}")
    else:
        rest = ("--checkpoint", "runs/vlmdiff", "--protocol", "diad", "--out", "runs/vlmdiff-report")
        print(f"for a model that takes captions at test time: {command_line('evaluate', *own, *rest)}")
