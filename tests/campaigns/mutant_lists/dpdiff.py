"""Wrong lines of DPDiff-AD."""

from __future__ import annotations

from tests.campaigns.mutant_lists.mutant import Mutant

_PART, _DETECTOR = "DPDiff-AD", "jaxad/detectors/dpdiff/detector.py"
_TWIN = ("tests/parity/test_dpdiff.py",)

MUTANTS = (
    Mutant(
        _PART,
        "prototypes are not noised in training",
        _DETECTOR,
        "prototypes = add_noise(prototypes, normal(keys[2], prototypes.shape), alpha_bar)",
        "prototypes = prototypes + 0",
        _TWIN,
    ),
    Mutant(
        _PART,
        "prototypes are not noised at inference",
        _DETECTOR,
        "noisy = add_noise(prototypes, noise(draw, prototypes), alpha_bar)",
        "noisy = prototypes",
        _TWIN,
    ),
    Mutant(
        _PART,
        "the transport loss has the other sign",
        _DETECTOR,
        'total = total + config.global_weight * terms["global"]',
        'total = total - config.global_weight * terms["global"]',
        _TWIN,
    ),
    Mutant(
        _PART,
        "lambda_1 is 1/200 of itself",
        _DETECTOR,
        'total = total + config.local_weight * terms["local"]',
        'total = total + config.local_weight / 200 * terms["local"]',
        _TWIN,
    ),
    Mutant(
        _PART,
        "self-attention of the DiT sees its input as it is",
        "jaxad/diffusion/dit.py",
        "            x = branch(x, self.self_attention)\n",
        "            shift, scale, gate = next(parts), next(parts), next(parts)\n"
        "            x = x + gate * self.self_attention(x * (1 + scale) + shift)\n",
        _TWIN,
    ),
    Mutant(
        _PART,
        "skips of the U-ViT in reverse order",
        "jaxad/diffusion/uvit.py",
        "skips.pop() if block.skip is not None else None",
        "skips.pop(0) if block.skip is not None else None",
        _TWIN,
    ),
    Mutant(
        _PART,
        "skips of the U-Net in reverse order",
        "jaxad/diffusion/unet.py",
        "self.up_coarse_attention, strict=True):\n"
        "            y = run(block, attend, jnp.concatenate([y, skips.pop()], axis=-1))",
        "self.up_coarse_attention, strict=True):\n"
        "            y = run(block, attend, jnp.concatenate([y, skips.pop(2)], axis=-1))",
        _TWIN,
    ),
)
