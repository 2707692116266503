"""Which random streams a layer reads, and the keys of one call."""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from zoo.recurrent.call import flax_checks

# What the layers of this project draw from; other people's cells may have streams of their own.
_KNOWN = ("dropout", "carry")


def read_by(layer: nn.Module, variables: Any, xs: Any, others: Collection[str]) -> tuple[str, ...]:
    """Returns the streams that a call of a layer reads when it drops and starts by itself.

    Args:
      layer: a Linen layer.
      variables: its variables, or their shapes.
      xs: inputs, or their shape.
      others: names of streams that it may read besides those of this project.
    """
    candidates = [*_KNOWN, *(n for n in others if n not in (*_KNOWN, "params", "default"))]
    collections = [name for name in variables if name != "params"]

    def run(names: Collection[str]) -> None:
        def call(variables: Any, keys: Any, xs: Any) -> Any:
            more: dict[str, Any] = {"mutable": collections} if collections else {}
            return layer.apply(variables, None, xs, deterministic=False, rngs=keys, **more)

        keys = {name: jax.eval_shape(lambda: jax.random.key(0)) for name in names}
        jax.eval_shape(call, variables, keys, xs)

    if _works(run, ()):
        return ()
    run(candidates)
    return tuple(
        name for name in candidates if not _works(run, [n for n in candidates if n != name])
    )


def keys(names: Collection[str], rngs: nnx.Rngs | None) -> dict[str, jax.Array]:
    """Draws a key from each of these streams.

    Raises:
      ValueError: there is no such stream.
    """
    drawn = {}
    for name in names:
        if rngs is None or not has(rngs, name):
            raise ValueError(
                f"rngs: expected a stream {name!r} or a default one, got "
                f"{'none' if rngs is None else sorted(rngs)}. Likely cause: the module was made "
                "without random streams. Cure: rngs=nnx.Rngs(seed) or a key, where it is made or "
                "in the call; for no dropout, module.eval() or deterministic=True."
            )
        drawn[name] = rngs[name]()
    return drawn


def of(given: Any) -> nnx.Rngs:
    """Returns random streams as they are, and makes them of a key.

    Raises:
      TypeError: neither streams nor a key were given.
    """
    if isinstance(given, nnx.Rngs):
        return given
    if not isinstance(given, jax.Array):
        raise TypeError(
            f"rngs: expected nnx.Rngs or a key, got {given!r}. Cure: nnx.Rngs(seed), or "
            "jax.random.key(seed)."
        )
    flax_checks.keys(given)
    return nnx.Rngs(given)


def has(rngs: nnx.Rngs, name: str) -> bool:
    """Whether there is a stream of this name, or a default one in its place."""
    return name in rngs or "default" in rngs


def _works(run: Callable[[Collection[str]], None], names: Collection[str]) -> bool:
    try:
        run(names)
    except Exception:
        # Flax, a layer and somebody's cell say in different ways that a key is missing. What fails
        # with all keys as well is raised there.
        return False
    return True
