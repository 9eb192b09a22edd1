"""Wrong lines, each with the tests that are to catch it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A wrong line.

    Attributes:
        part: of jaxad that it is in.
        name: what is wrong.
        file: where.
        right: what stands there, once.
        wrong: what takes its place.
        tests: what to run.
    """

    part: str
    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


def _of(part: str, tests: tuple[str, ...], *mutants: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(part, *mutant, tests) for mutant in mutants)


_DPDIFF = "jaxad/detectors/dpdiff/detector.py"
MUTANTS = (
    *_of(
        "DPDiff-AD",
        ("tests/parity/test_dpdiff.py",),
        (
            "prototypes are not noised in training",
            _DPDIFF,
            "prototypes = add_noise(prototypes, jax.random.normal(keys[2], prototypes.shape, jnp.float32), alpha_bar)",
            "prototypes = prototypes + 0",
        ),
        (
            "prototypes are not noised at inference",
            _DPDIFF,
            "noisy = add_noise(prototypes, noise(draw, prototypes), alpha_bar)",
            "noisy = prototypes",
        ),
        (
            "the transport loss has the other sign",
            _DPDIFF,
            'total = total + config.global_weight * terms["global"]',
            'total = total - config.global_weight * terms["global"]',
        ),
        (
            "lambda_1 is 1/200 of itself",
            _DPDIFF,
            'total = total + config.local_weight * terms["local"]',
            'total = total + config.local_weight / 200 * terms["local"]',
        ),
        (
            "self-attention of the DiT sees its input as it is",
            "jaxad/diffusion/dit.py",
            "            x = branch(x, self.self_attention)\n",
            "            shift, scale, gate = next(parts), next(parts), next(parts)\n"
            "            x = x + gate * self.self_attention(x * (1 + scale) + shift)\n",
        ),
        (
            "skips of the U-ViT in reverse order",
            "jaxad/diffusion/uvit.py",
            "skips.pop() if block.skip is not None else None",
            "skips.pop(0) if block.skip is not None else None",
        ),
        (
            "skips of the U-Net in reverse order",
            "jaxad/diffusion/unet.py",
            "self.up_coarse_attention, strict=True):\n"
            "            y = run(block, attend, jnp.concatenate([y, skips.pop()], axis=-1))",
            "self.up_coarse_attention, strict=True):\n"
            "            y = run(block, attend, jnp.concatenate([y, skips.pop(2)], axis=-1))",
        ),
    ),
)
