"""What a detector is worth on the way: a few images of the hold-out, or of the test, scored while it is trained.

Evaluations draw from keys of their own, run programs of their own and read copies of the parameters: a training with
them ends with the same bits as one without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxad import metrics, parallel
from jaxad.config import TrainConfig
from jaxad.data.depth import read_at
from jaxad.data.tiles import TiledSource
from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.features import Encoder, FeatureCache, LiveFeatures
from jaxad.inference.evaluation import score
from jaxad.inference.holdout_scores import measure_holdout
from jaxad.nn import module_state
from jaxad.training.loop import Evaluations, Progress
from jaxad.training.run_folder import Place
from jaxad.training.step import DetectorTrainer, TrainState
from jaxad.types import Record, Source

BATCH = 16
"""Images that are scored at once, at most."""
KEY = 0
"""Seed of the noise under which the loss of held-out images is measured, the same at every step."""


@dataclass(frozen=True)
class Watched:
    """Images that are scored on the way, some or all `of` so many of their part of the data."""

    source: Source
    of: int


def watched(config: TrainConfig, holdout: Source | None, test: Source | None) -> Watched | None:
    """The images that `config` has scored on the way, None where it has none scored.

    Args:
        config: how many, of which part.
        holdout: normal images that are not trained on.
        test: labeled images.

    Raises:
        ConfigError: there are none of that part.
    """
    if config.eval_every is None:
        return None
    source = holdout if config.eval_on == "holdout" else test
    records = () if source is None else source.records
    usable = [i for i, record in enumerate(records) if config.eval_on == "holdout" or record.label is not None]
    if source is None or not usable:
        kinds = {"holdout": "of a hold-out; give holdout = 0.1, or eval_on = test", "test": "with labels to test on"}
        raise ConfigError(f"eval_every = {config.eval_every}: there are no images {kinds[config.eval_on]}")
    # A source of another package that cannot be divided is taken whole.
    select = getattr(source, "select", None)
    places = evenly([records[index] for index in usable], config.eval_images)
    return Watched(source if select is None else select([usable[place] for place in places]), len(usable))


def evenly(records: Sequence[Record], most: int) -> list[int]:
    """Places of at most so many records, in their order: as many of each category, normal and anomalous, as there are,
    and within these evenly spaced."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for place, record in enumerate(records):
        groups.setdefault((record.category, bool(record.label)), []).append(place)
    shares = dict.fromkeys(groups, 0)
    left = min(most, len(records))
    while left:
        for group, places in groups.items():
            if left and shares[group] < len(places):
                shares[group], left = shares[group] + 1, left - 1
    chosen = []
    for group, places in groups.items():
        steps = np.linspace(0, len(places) - 1, shares[group]) if shares[group] > 1 else [0.0] * shares[group]
        chosen += [places[round(float(step))] for step in steps]
    return sorted(chosen)


def evaluations(
    detector: Detector, trainer: DetectorTrainer, watch: Watched, protocol: str, config: TrainConfig, run: Place
) -> Evaluations:
    """What `config` has computed on the way.

    Args:
        detector: that is trained, with the arrays that are not.
        trainer: of it.
        watch: the images.
        protocol: in which they are scored.
        config: how the detector is trained.
        run: where.
    """
    assert config.eval_every is not None
    judge = _Judge(detector, trainer, watch.source, protocol, config, run)
    counts = {"images": len(watch.source), "of": watch.of}
    values = judge.on_holdout if config.eval_on == "holdout" else judge.on_test
    return Evaluations(config.eval_on, config.eval_every, lambda state, told: {**counts, **values(state, told)})


class _Judge:
    def __init__(
        self,
        detector: Detector,
        trainer: DetectorTrainer,
        source: Source,
        protocol: str,
        config: TrainConfig,
        run: Place,
    ):
        self._untrained, self._trainer, self._run = detector, trainer, run
        self._source: Source = read_at(source, dict(detector.depths))
        self._how: dict[str, Any] = {"protocol": protocol, "batch_size": BATCH, "workers": run.workers}
        self._config = config
        self._detector: Detector | None = None
        self._learned: FeatureCache | None = None
        self._judged: FeatureCache | None = None

    def on_test(self, state: TrainState, told: Progress) -> Mapping[str, float | None]:
        """The means of the metrics over the categories."""
        how = {**self._how, "features": self._judged_features(told), "progress": told}
        return metrics.summarize(score(self._present(state), self._source, **how).results())

    def on_holdout(self, state: TrainState, told: Progress) -> Mapping[str, float | None]:
        """The loss, and how image scores are distributed."""
        how = {**self._how, "features": self._judged_features(told)}
        scores = measure_holdout(self._present(state), self._source, progress=told, **how).scores
        middle, high = np.quantile(scores, (0.5, 0.95))
        values = {"loss": self._loss(state, told), "score_median": middle, "score_p95": high, "score_max": scores.max()}
        return {name: float(value) for name, value in values.items()}

    def _present(self, state: TrainState) -> Detector:
        """The detector with the parameters to evaluate; always the same one, which keeps its compiled programs."""
        if self._detector is None:
            self._detector = self._trainer.detector(state)
        else:
            module_state.refill(self._detector, state.params if state.ema is None else state.ema)
        return self._detector

    def _loss(self, state: TrainState, told: Progress) -> float:
        """Mean loss of equal batches, the last one filled up with images from the beginning."""
        features = self._learned_features(told)
        images, mesh = len(features), self._run.mesh
        batches = math.ceil(images / self._config.batch_size)
        size = math.ceil(images / batches)
        size += -size % mesh.size
        places, key = np.arange(batches * size) % images, jax.random.key(KEY)
        total: Any = 0.0
        for number, part in enumerate(np.split(places, batches)):
            told(len(part))
            before, batch = total, features[part]
            total = before + self._trainer.loss(state, batch, jax.random.fold_in(key, number))
            # The next batch comes while the devices work at this one; further ones would fill their memory.
            jax.block_until_ready(before)
        return float(parallel.to_host(total)) / batches

    def _learned_features(self, told: Progress) -> FeatureCache | LiveFeatures:
        """Features of the images as they are trained on: of whole images, or of their tiles."""
        if self._learned is not None:
            return self._learned
        source, tiling = self._source, self._untrained.tiling
        if tiling is not None:
            source = TiledSource(source, tiling, per_image=1, seed=KEY, workers=self._run.workers)
        encoder = self._encoder(training=True)
        if not self._is_kept(source, 1):
            return LiveFeatures(encoder, source)
        self._learned = FeatureCache.build(self._untrained, source, encoder=encoder, progress=told)
        return self._learned

    def _judged_features(self, told: Progress) -> FeatureCache | None:
        """Features of the images as they are judged, unrounded; None where they are made anew each time.

        These are tiles, regions, and more of them than `TrainConfig.cache_limit_gb` has room for.
        """
        if self._untrained.tiling is not None or self._untrained.regions or not self._is_kept(self._source, 2):
            return None
        if self._judged is None:
            parts = [part for part, _ in self._encoder(training=False).stream(self._source, progress=told)]
            self._judged = FeatureCache(jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts), "")
        return self._judged

    def _encoder(self, *, training: bool) -> Encoder:
        """The frozen networks; not kept, as training has use for their place on the devices."""
        how: dict[str, Any] = {"workers": self._run.workers, "mesh": self._run.mesh}
        return Encoder(self._untrained, batch_size=BATCH, training=training, **how)

    def _is_kept(self, source: Source, times: int) -> bool:
        """Whether there is room in the host's memory for features of so many `times` their usual size."""
        return times * FeatureCache.size(self._untrained, len(source)) <= self._config.cache_limit_gb * 1e9
