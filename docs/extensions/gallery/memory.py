"""How far back a layer remembers when it is new: gradients of the last output by lag."""

import jax
import jax.numpy as jnp
import numpy as np

from docs.extensions.gallery import layers

STEPS, FEATURES, SEQUENCES, SEEDS = 256, 32, 32, 3
_SPACE = (4, 4)
SHARE = 0.01
"""Of the gradient at lag 0: what is less counts as forgotten."""


def gradients(name: str) -> np.ndarray:
    """The norm of the gradient of the last output with respect to the input of every lag, (T,).

    Inputs are drawn from a normal distribution. The output's derivative is taken in a random
    direction, whose mean square is that of all directions together.
    """
    # All implementations give the same numbers, and this one is compiled the fastest.
    layer = layers.build(name, FEATURES, implementation="scan")
    images = layer.feature_axes > 1
    batch = SEQUENCES // 8 if images else SEQUENCES
    shape = (STEPS, batch, *(_SPACE if images else ()), FEATURES)

    @jax.jit
    def of_seed(key: jax.Array) -> jax.Array:
        first, second, third = jax.random.split(key, 3)
        xs = jax.random.normal(first, shape)
        variables = layer.init(second, None, xs)
        direction = jax.random.normal(third, shape[1:])

        def along(xs: jax.Array) -> jax.Array:
            return jnp.sum(layer.apply(variables, None, xs)[1][-1] * direction)

        square = jnp.square(jax.grad(along)(xs)).reshape(STEPS, batch, -1).sum(-1)
        return jnp.sqrt(square.mean(-1))[::-1]

    return np.mean([np.asarray(of_seed(jax.random.key(seed))) for seed in range(SEEDS)], axis=0)


def reach(norms: np.ndarray) -> int | None:
    """The lag from which on the gradient is less than a hundredth of that at lag 0.

    None where it is more than that until the end.

    Example:
      >>> reach(np.array([1.0, 0.1, 0.02, 0.009]))
      3
    """
    kept = np.nonzero(norms >= SHARE * norms[0])[0][-1] + 1
    return None if kept == len(norms) else int(kept)
