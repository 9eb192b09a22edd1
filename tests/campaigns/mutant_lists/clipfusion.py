"""Wrong lines of CLIPFusion."""

from __future__ import annotations

from tests.campaigns.mutant_lists.mutant import Mutant

_PART, _ROOM = "CLIPFusion", "jaxad/detectors/clipfusion"
_DETECTOR, _MAPDIFF, _MAPS = (f"{_ROOM}/{name}.py" for name in ("detector", "mapdiff", "maps"))
_CONFIG = "jaxad/config/clipfusion.py"
_METHOD = ("tests/detectors/clipfusion/test_method.py",)
_MAPDIFF_TESTS = ("tests/detectors/clipfusion/test_mapdiff.py",)
_PATCHCLIP_TESTS = ("tests/detectors/clipfusion/test_patchclip.py",)
_MAPS_TESTS = ("tests/detectors/clipfusion/test_maps.py",)
_PROMPTS_TESTS = ("tests/detectors/clipfusion/test_prompts.py",)

MUTANTS = (
    Mutant(
        _PART,
        "the map has alpha of the score, 0.75",
        _DETECTOR,
        'maps.fuse(terms, config.map_weight, "sum"',
        'maps.fuse(terms, config.score_weight, "sum"',
        _METHOD,
        before="",
    ),
    Mutant(
        _PART,
        "alpha weighs the diffusion model",
        _MAPS,
        '{"clip": weight, "diffusion": 1 - weight}',
        '{"clip": 1 - weight, "diffusion": weight}',
        _MAPS_TESTS,
        before="tests/detectors/clipfusion/test_maps.py::test_fusion",
    ),
    Mutant(
        _PART,
        "CLIP's score by references is the mean of its map, not the maximum",
        _DETECTOR,
        'found["clip"][1]["vision"] = map.max((1, 2))',
        'found["clip"][1]["vision"] = map.mean((1, 2))',
        _METHOD,
        before="",
    ),
    Mutant(
        _PART,
        "references pass the UNet with the prompt of the first state, not of a perfect object",
        _DETECTOR,
        "texts = self.reference[...][jnp.asarray(batch.category)]",
        "texts = self.queries[...][jnp.asarray(batch.category)][:, 0]",
        _METHOD,
        before="",
    ),
    Mutant(
        _PART,
        "all images are compared with the references of the first category",
        _DETECTOR,
        '"bank": category if self.config.per_category else jnp.zeros_like(category)',
        '"bank": jnp.zeros_like(category)',
        _METHOD,
        before="",
    ),
    Mutant(
        _PART,
        "images for CLIP are resized bilinearly",
        _DETECTOR,
        'View(self.patchclip.size, self.patchclip.size, "bicubic", c.clip_resize == "crop")',
        'View(self.patchclip.size, self.patchclip.size, "bilinear", c.clip_resize == "crop")',
        _METHOD,
        before="",
    ),
    Mutant(
        _PART,
        "the features of each tap come from the first timestep",
        _MAPDIFF,
        "= own[:, call.timesteps.index(t)]",
        "= own[:, 0]",
        _MAPDIFF_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "the attention is that of the first timestep, not the mean over all",
        _MAPDIFF,
        "for t in steps]).mean(0)",
        "for t in steps])[0]",
        _MAPDIFF_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "timesteps and images of a call are in other orders",
        _MAPDIFF,
        "timesteps = jnp.tile(jnp.array(call.timesteps), b)",
        "timesteps = jnp.repeat(jnp.array(call.timesteps), b)",
        _MAPDIFF_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "the score by attention is that of the scaled map",
        _MAPDIFF,
        'focus = map if config.attention_score == "scaled" else attention',
        "focus = map",
        _MAPDIFF_TESTS,
        before="tests/detectors/clipfusion/test_mapdiff.py::test_score_of_the_scaled_map",
    ),
    Mutant(
        _PART,
        "the masked image of the inpainting UNet is empty",
        _MAPDIFF,
        "jnp.concatenate([noised, jnp.zeros_like(latents[..., :1]), latents], axis=-1)",
        "jnp.concatenate([noised, jnp.zeros_like(latents[..., :1]), jnp.zeros_like(latents)], axis=-1)",
        _MAPDIFF_TESTS,
        before="tests/detectors/clipfusion/test_mapdiff.py::test_noise_of_each_timestep_comes_onto_the_latents_alone[clean-9]",
    ),
    Mutant(
        _PART,
        "attention is scaled over the batch, not over each image",
        _MAPS,
        "high = maps.max((1, 2), keepdims=True)",
        "high = maps.max(keepdims=True)",
        _MAPS_TESTS,
        before="tests/detectors/clipfusion/test_maps.py::test_scales_of_attention",
    ),
    Mutant(
        _PART,
        "maps are resized with aligned corners",
        _MAPS,
        "centers = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)",
        "centers = np.arange(new) * ((old - 1) / max(new - 1, 1))",
        _MAPS_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "blocks of CLIP are joined by their largest distance, not by the mean",
        f"{_ROOM}/patchclip.py",
        "jnp.stack(distances).mean(0)",
        "jnp.stack(distances).max(0)",
        _PATCHCLIP_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "cosines are multiplied by the logarithm of CLIP's scale",
        f"{_ROOM}/networks.py",
        "return _Loaded((clip.vision, clip.scale()), *_account([weights]))",
        "return _Loaded((clip.vision, clip.logit_scale[...]), *_account([weights]))",
        _PATCHCLIP_TESTS,
        before="",
    ),
    Mutant(
        _PART,
        "embeddings of an ensemble are normalized before their mean",
        f"{_ROOM}/prompts.py",
        'embeddings = _run(tower, ids, "embedding")\n',
        'embeddings = _run(tower, ids, "embedding")\n'
        "    embeddings = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)\n",
        _PROMPTS_TESTS,
        before="tests/detectors/clipfusion/test_prompts.py::test_directions_are_means_of_what_the_tower_says",
    ),
    Mutant(
        _PART,
        "early timesteps go with coarse blocks, late ones with fine ones",
        _CONFIG,
        "setting(((201, 3), (401, 2), (801, 1)), ",
        "setting(((201, 1), (401, 2), (801, 3)), ",
        _METHOD,
        before="tests/experiments/clipfusion/test_readings.py::test_rows_that_a_reading_cannot_change_are_shared",
    ),
    Mutant(
        _PART,
        "the alphas of map and score are exchanged",
        _CONFIG,
        'map_weight: float = setting(0.25, source="paper")',
        'map_weight: float = setting(0.75, source="paper")',
        _METHOD,
        before="tests/experiments/clipfusion/test_readings.py::test_readings_are_settings_that_work_and_all_differ",
    ),
)
