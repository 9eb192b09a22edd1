"""Local and global prototypes of DPDiff-AD: image-conditioned extractors and the losses that shape them."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
from flax import nnx
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn

from jaxad.nn.activations import softmax
from jaxad.nn.attention import attention
from jaxad.nn.cosine import cosines
from jaxad.nn.precision import Linear, product, rounded
from jaxad.types import Array


class PrototypeExtractor(nnx.Module):
    """Summarizes the tokens of an image in a few prototypes: one transformer layer over learnable queries (Eq. 10).

        T' = CrossAttn(T, x, x) + T        P = FFN(T') + T'

    Args:
        prototypes: their number k.
        channels: width c of tokens and prototypes.
        heads, mlp_ratio: of the layer.
        pre_norm: layer norm (shared by queries and tokens) before attention and feed-forward. Eq. 10 writes none, but
            the extractor of INP-Former, which it resembles, has it.
        epsilon: of the layer norms.
        query_scale, kernel_init: deviation of the first queries, and the first kernels.
        dtype: compute type.
    """

    def __init__(
        self,
        prototypes: int,
        channels: int,
        *,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        pre_norm: bool = True,
        epsilon: float = 1e-6,
        query_scale: float = 0.02,
        kernel_init: nnx.Initializer = nnx.initializers.truncated_normal(0.02),  # noqa: B008
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        self.queries = nnx.Param(query_scale * jax.random.normal(rngs.params(), (prototypes, channels), jnp.float32))
        self.norm = nnx.LayerNorm(channels, epsilon=epsilon, rngs=rngs) if pre_norm else None
        self.mlp_norm = nnx.LayerNorm(channels, epsilon=epsilon, rngs=rngs) if pre_norm else None

        def linear(n_in, n_out, rounded=False):
            return Linear(n_in, n_out, rounded=rounded, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

        hidden = round(channels * mlp_ratio)
        self.query = linear(channels, channels, rounded=True)
        self.key_value = linear(channels, 2 * channels, rounded=True)
        self.attention_out = linear(channels, channels)
        self.mlp_in, self.mlp_out = linear(channels, hidden), linear(hidden, channels)

    def __call__(self, tokens: Array) -> jax.Array:
        """tokens [b n c] -> prototypes float32 [b k c]."""
        channels = self.queries.shape[-1]
        chex.assert_shape(tokens, (None, None, channels), custom_message=f"tokens must be [b n {channels}]")
        queries = jnp.broadcast_to(self.queries[...][None], (tokens.shape[0], *self.queries.shape))
        query, tokens = (queries, tokens) if self.norm is None else (self.norm(queries), self.norm(tokens))
        few = self.heads * queries.shape[1] < channels
        attend = (
            partial(jax.lax.platform_dependent, cpu=self._few_attend, default=self._attend) if few else self._attend
        )
        x = queries + self.attention_out(attend(self.query(query), tokens))
        y = x if self.mlp_norm is None else self.mlp_norm(x)
        return x + self.mlp_out(nnx.gelu(self.mlp_in(y), approximate=False))

    def _attend(self, query: jax.Array, tokens: Array) -> jax.Array:
        """Attention of queries [b k c] to tokens [b n c], before the last projection: [b k c]."""
        key, value = jnp.split(self.key_value(tokens), 2, axis=-1)
        return attention(query, key, value, self.heads)

    def _few_attend(self, query: jax.Array, tokens: Array) -> jax.Array:
        """The same with the projection of keys multiplied into the queries of each head, and that of values into what
        these have taken of the tokens, since to project all tokens is most of the work.

        The bias of the keys adds the same to all logits of a query, and does nothing.
        """
        assert self.key_value.bias is not None
        b, k, c = query.shape
        dtype, heads = query.dtype, self.heads
        kernel = rounded(self.key_value.kernel[...], str(dtype)).reshape(c, 2, heads, -1)
        scaled = (query.astype(jnp.float32) * (c // heads) ** -0.5).reshape(b, k, heads, -1)
        queries = jnp.einsum("bkhd,chd->bhkc", scaled, kernel[:, 0]).reshape(b, heads * k, c)
        logits = product(queries, jnp.swapaxes(tokens, 1, 2), dtype, dtype)
        taken = product(softmax(logits, dtype), tokens, dtype, jnp.float32).reshape(b, heads, k, c)
        value = jnp.einsum("bhkc,chd->bkhd", taken, kernel[:, 1]).reshape(b, k, c)
        return (value + self.key_value.bias[c:].reshape(1, 1, -1)).astype(dtype)


def cosine_similarity(tokens: Array, prototypes: Array) -> jax.Array:
    """Cosine of every token with every prototype: [b n c], [b k c] -> [b n k] in -1..1."""
    _check(tokens, prototypes)
    return cosines(tokens, prototypes)


def local_loss(tokens: Array, prototypes: Array) -> jax.Array:
    """Mean over tokens of 1 - cosine to the nearest prototype, in 0..2 (Eq. 11): [b n c], [b k c] -> scalar."""
    return (1 - cosine_similarity(tokens, prototypes).max(axis=-1)).mean()


def global_loss(
    tokens: Array, prototypes: Array, *, epsilon: float = 0.05, iterations: int = 500
) -> tuple[jax.Array, jax.Array]:
    """Entropic optimal transport between the uniform measures on tokens and on prototypes (Eq. 12 and 13).

    The cost of a pair is its squared distance. Sinkhorn runs for each image in the log domain on that cost divided by
    the width c (so that `epsilon` does not depend on the width); the plan is a constant for the gradient, which by the
    envelope theorem is that of the loss itself.

    Args:
        tokens: [b n c].
        prototypes: [b k c].
        epsilon: entropic regularization of the cost divided by c.
        iterations: most Sinkhorn iterations; it ends before where all marginals hold to 1e-4.

    Returns:
        The mean over images of c * (<T, C/c> + epsilon * sum T log T), and the largest L1 error of a marginal of the
        plan (tokens or prototypes) over the images, both scalars.
    """
    _check(tokens, prototypes)
    channels = tokens.shape[-1]
    solve = sinkhorn.Sinkhorn(
        lse_mode=True,
        threshold=5e-5,
        min_iterations=0,
        max_iterations=iterations,
        inner_iterations=10,
        use_danskin=True,
        implicit_diff=None,
    )

    def one_image(cost):
        problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=cost, epsilon=epsilon))
        result = solve(problem)
        plan = jax.lax.stop_gradient(result.matrix)
        errors = (jnp.abs(plan.sum(axis) - 1 / plan.shape[1 - axis]).sum() for axis in (0, 1))
        return result.ent_reg_cost, jnp.maximum(*errors)

    with jax.numpy_rank_promotion("allow"):
        loss, error = jax.vmap(one_image)(_squared_distance(tokens, prototypes) / channels)
    return channels * loss.mean(), error.max()


def _check(tokens: Array, prototypes: Array) -> None:
    chex.assert_rank(tokens, 3, custom_message="tokens must be [b n c]")
    b, _, c = tokens.shape
    chex.assert_shape(prototypes, (b, None, c), custom_message="prototypes must be [b k c] for tokens [b n c]")


def _squared_distance(tokens: Array, prototypes: Array) -> jax.Array:
    """[b n c], [b k c] -> [b n k]."""
    product = jnp.einsum("bnc,bkc->bnk", tokens, prototypes, precision="highest")
    squares = jnp.square(tokens).sum(-1)[:, :, None] + jnp.square(prototypes).sum(-1)[:, None, :]
    return jnp.maximum(squares - 2 * product, 0.0)
