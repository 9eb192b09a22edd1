"""Many runs of CLIPFusion out of one pass over the test images: their frozen networks see each image once.

Not an experiment itself; `rows.py` builds on it. The passes of the UNet of an image, one for each timestep and prompt,
and the features of CLIP are computed once; every run, of any row, seed, number of references or weight, fuses them as
its detector does. References are seen once for each draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import jaxad
from jaxad import parallel
from jaxad.config import CLIPFusionConfig
from jaxad.data.batches import LoadedBatch
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.detectors.clipfusion.networks import TEXT_FIELDS, FusionNetworks, Texts, embed_texts
from jaxad.detectors.clipfusion.shared import SharedFeatures, sharing_key
from jaxad.inference.evaluation import Scored
from jaxad.inference.programs import unprocessed
from jaxad.inference.together import Raw, score_together
from jaxad.nn import module_state
from jaxad.nn.precision import with_rounded_parameters
from jaxad.types import Array, Batch, Source

BACKBONE = "backbone/"
"""How the paths of the networks' arrays begin in a detector."""


_OF_DIFFUSION = (
    *("diffusion", "diffusion_tokenizer", "image_size", "latents", "denoiser_input", "tap_place"),
    *("reference_prompt", "objects", "object_names", "diffusion_taps"),
)
"""What networks and banks of the diffusion model hang on."""


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        config: settings.
        shots: references of each category.
        seed: of their draw; 0 without references.
        category: the only one that is evaluated, None for all.
    """

    config: CLIPFusionConfig
    shots: int
    seed: int
    category: str | None = None


def groups(runs: Sequence[Run], most: int) -> list[list[Run]]:
    """Runs that can share a pass over the images, at most so many in each group."""
    return _gathered(runs, lambda run: {**sharing_key(run.config), "category": run.category}, most)


def widest(runs: Sequence[Run]) -> CLIPFusionConfig:
    """Settings with the models of all runs of a group, each as the first run with it has it."""
    first = {model: run.config for run in reversed(runs) for model in run.config.models}
    config = next(iter(first.values())) if len(first) == 1 else first["clip"]
    if "diffusion" in first:
        own = {name: getattr(first["diffusion"], name) for name in _OF_DIFFUSION}
        config = dataclasses.replace(config, **own)
    return dataclasses.replace(config, models=tuple(sorted(first)))


def score_runs(
    runs: Sequence[Run],
    networks: FusionNetworks,
    dataset: jaxad.data.DataSet,
    *,
    protocol: str,
    lists: Path | None = None,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Evaluates runs of one group in one pass.

    Args:
        runs: of one group (`groups`).
        networks: those of `widest(runs)`.
        dataset: the images.
        protocol: evaluation protocol.
        lists: folder of published choices of references, in place of the draws.
        batch_size: images at once.
        progress: called with the number of images done since the last call.

    Returns:
        What was scored, run by run.
    """
    mesh = parallel.make_mesh()
    detectors = list(_detectors(runs, networks, dataset, lists, mesh))
    shared = SharedFeatures(detectors)
    whole, given = module_state.split(networks)
    arrays = parallel.shard_parameters(with_rounded_parameters(networks, given), mesh)

    def looked_at(arrays: Mapping[str, Array], batch: Batch) -> Any:
        return shared.encode(module_state.merge(whole, arrays), batch)

    encode = jax.jit(parallel.on_mesh(looked_at, mesh))
    programs: dict[Any, Callable[..., Raw]] = {}

    def prepared(number: int) -> tuple[Callable[..., Raw], dict[str, Array]]:
        """What judges for a run, and the arrays of its detector: those of the networks are the shared ones."""
        detector = detectors[number]
        graphdef, own = module_state.split(detector)

        def judge(own: Mapping[str, Array], found: Any, batch: Batch) -> Raw:
            assert batch.category is not None
            features = shared.features(number, found, batch.category)
            return unprocessed(module_state.merge(graphdef, own), features, batch)

        memories = {path: array for path, array in own.items() if not path.startswith(BACKBONE)}
        frozen = {path: arrays[path.removeprefix(BACKBONE)] for path in own if path.startswith(BACKBONE)}
        # Draws of one setting share a program.
        program = jax.jit(parallel.on_mesh(judge, mesh))
        known = programs.setdefault((detector.config, detector.few_shot), program)
        return known, {**parallel.shard_parameters(memories, mesh), **frozen}

    judges = [prepared(number) for number in range(len(detectors))]

    def judge(loaded: LoadedBatch, batch: Batch) -> Iterator[Raw]:
        found = encode(arrays, batch)
        for run, own in judges:
            yield run(own, found, batch)

    options: dict[str, Any] = {"views": shared.views, "batch_size": batch_size, "progress": progress}
    scored = score_together(detectors, dataset.test, judge, protocols=(protocol,), **options)
    return [own[protocol] for own in scored]


def _detectors(
    runs: Sequence[Run], networks: FusionNetworks, dataset: jaxad.data.DataSet, lists: Path | None, mesh: Mesh
) -> Iterator[CLIPFusion]:
    """A detector for each run, that remembers its references."""
    draws: dict[tuple[int, int], Source] = {}
    banks: dict[Any, dict[str, Array]] = {}
    texts: dict[Any, Texts] = {}
    tellers = _tellers(runs)
    for run in runs:
        teller, draw = tellers[run], (run.shots, run.seed)
        if draw not in draws:
            names = jaxad.data.ClassNames(dataset.categories)
            draws[draw] = dataset.train.per_class(*draw, lists=lists) if run.shots else names
        if run.shots and (teller, draw) not in banks:
            one = CLIPFusion.create(teller, backbone=networks.of(teller.models))
            found = one.remember(draws[draw], texts=_texts(teller, dataset, texts)).banks
            # Once on the devices, for all runs.
            banks[teller, draw] = parallel.shard_parameters(found, mesh)
        detector = CLIPFusion.create(run.config, backbone=networks.of(run.config.models))
        known = banks[teller, draw] if run.shots else None
        yield detector.remember(draws[draw], texts=_texts(run.config, dataset, texts), banks=known)


def _texts(config: CLIPFusionConfig, dataset: jaxad.data.DataSet, known: dict[Any, Texts]) -> Texts:
    """The prompts of a config, embedded once for all configs that have the same."""
    key = tuple(getattr(config, name) for name in TEXT_FIELDS)
    if key not in known:
        known[key] = embed_texts(config, tuple(dataset.categories))
    return known[key]


def _tellers(runs: Sequence[Run]) -> dict[Run, CLIPFusionConfig]:
    """For each run settings whose detector has its banks, and those of as many other runs as can share them."""

    def key(run: Run) -> dict[str, Any]:
        c = run.config
        keys = {
            "clip": (c.clip_map, c.vv_blocks, c.clip_blocks, c.clip_block_path, c.windows),
            "diffusion": (c.reference_prompt, c.objects, c.object_names, c.tap_place),
        }
        return {"rotations": c.rotations, **{model: keys[model] for model in c.models}}

    found = {}
    for members in _gathered(runs, key, len(runs)):
        both = widest(members)
        taps = (tap for run in members if "diffusion" in run.config.models for tap in run.config.diffusion_taps)
        changes: dict[str, Any] = {"diffusion_taps": tuple(dict.fromkeys(taps)) or both.diffusion_taps}
        changes |= {"modalities": ("language", "vision"), "per_category": True, "class_states": ()}
        # Banks do not depend on how maps are fused, and not every way goes with all models.
        changes |= {"fusion": "sum", "score_fusion": "sum"}
        found |= dict.fromkeys(members, dataclasses.replace(both, **changes))
    return found


def _gathered(runs: Sequence[Run], key_of: Callable[[Run], dict[str, Any]], most: int) -> list[list[Run]]:
    """Runs whose keys say nothing that contradicts, at most so many together."""
    found: list[tuple[dict[str, Any], list[Run]]] = []
    # Those that say most come first: what says little fits any of them.
    for run in sorted(runs, key=lambda run: -len(run.config.models)):
        key = key_of(run)
        for known, members in found:
            if len(members) < most and all(known.get(name, own) == own for name, own in key.items()):
                known |= key
                members.append(run)
                break
        else:
            found.append((key, [run]))
    return [members for _, members in found]
