"""How far a layer's values and gradients are from the same layer in float64 on the CPU."""

import contextlib
import functools
from typing import Any

import numpy as np

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25}
"""Of the largest entry of each array; a wrong equation is off by about 1."""

_STEPS, _BATCH, _INPUTS, _FEATURES = 24, 4, 6, 8
# The fewest and the most with which the kernel of a gated layer is taken.
_KERNEL_FEATURES = (64, 256)


def implementations(name: str) -> list[str]:
    """The implementations that a registered layer can be built with.

    Example:
      >>> implementations("scan_gru")[:2]
      ['scan', 'fused']
    """
    import registry

    found = []
    for implementation in ("scan", "fused", "parallel", "kernel"):
        with contextlib.suppress(ValueError):
            registry.build(name, features=_FEATURES, implementation=implementation)
            found.append(implementation)
    return found


def parity(name: str) -> dict[str, float]:
    """Runs a registered layer in every implementation and dtype on JAX's default device.

    Inputs have lengths and resets. Products are made in the highest precision, but in the
    kernel of a gated layer.

    Args:
      name: registered name of a leaf layer, such as "scan_gru".

    Returns:
      By "implementation dtype", with "H256" where the size matters, the largest error of outputs,
      last carry and gradients (of parameters, inputs and the first carry), each relative to the
      largest entry of its array.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    cpu, here = jax.local_devices(backend="cpu")[0], jax.devices()[0]
    found, ways = {}, implementations(name)
    for implementation in ways:
        # Of a gated layer: that of a linear recurrence takes all sizes, and multiplies nothing.
        kernel = implementation == "kernel" and "parallel" not in ways
        for features in _KERNEL_FEATURES if kernel else (_FEATURES,):
            expected = _run(name, features, "scan", "float64", cpu)
            for dtype in ("bfloat16",) if kernel else TOLERANCE:
                # A kernel multiplies as tensor cores do, and is not taken where more is asked for.
                highest = jax.default_matmul_precision("highest")
                with contextlib.nullcontext() if kernel else highest:
                    got = _run(name, features, implementation, dtype, here)
                label = f"{implementation} {dtype}" + (f" H{features}" if kernel else "")
                found[label] = _error(got, expected)
    return found


def _run(name: str, features: int, implementation: str, dtype: str, device: Any) -> Any:
    import jax
    import jax.numpy as jnp

    import registry

    wide = dtype == "float64"
    layer = registry.build(
        name,
        features=features,
        implementation=implementation,
        dtype=dtype,
        param_dtype="float64" if wide else "float32",
        carry_dtype="float64" if wide else "float32",
    )
    cast = functools.partial(
        jax.tree.map,
        lambda x: jax.device_put(jnp.asarray(x, "float64" if wide else "float32"), device),
    )
    params, start, xs, cotangent, resets, lengths = _numbers(name, features)
    resets, lengths = jax.device_put((resets, lengths), device)

    @jax.jit
    def run(params, start, xs, cotangent):
        def outcome(params, start, xs):
            final, ys = layer.apply(
                {"params": params}, start, xs, resets=resets, seq_lengths=lengths
            )
            return jnp.sum(ys.astype(cotangent.dtype) * cotangent), (final, ys)

        return jax.grad(outcome, (0, 1, 2), has_aux=True)(params, start, xs)

    return jax.tree.map(
        lambda x: np.asarray(x).astype(np.float64),
        run(*map(cast, (params, start, xs, cotangent))),
    )


@functools.cache
def _numbers(name: str, features: int) -> Any:
    """Parameters, first carry, inputs, cotangent, resets and lengths, in NumPy."""
    import jax

    import registry

    random = np.random.default_rng(0)
    layer = registry.build(name, features=features)
    space = (4,) * (layer.feature_axes - 1)
    xs = random.standard_normal((_STEPS, _BATCH, *space, _INPUTS)).astype(np.float32)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        params = layer.init(jax.random.key(0), None, xs)["params"]
        # Zero biases would hide mistakes.
        params = jax.tree.map(
            lambda x: np.asarray(x) + 0.1 * random.standard_normal(x.shape, np.float32), params
        )
        # One that can be reached: a normaliser in a carry has to stay away from zero.
        start, _ = layer.apply({"params": params}, None, xs[::-1])

    return (
        jax.tree.map(np.asarray, params),
        jax.tree.map(np.asarray, start),
        xs,
        random.standard_normal((*xs.shape[:-1], features)).astype(np.float32),
        random.random((_STEPS, _BATCH)) < 0.1,
        np.array([_STEPS, _STEPS - 5, 3, _STEPS]),
    )


def _error(got: Any, expected: Any) -> float:
    import jax

    def one(got: np.ndarray, expected: np.ndarray) -> float:
        size = np.max(np.abs(expected), initial=0.0)
        return float(np.max(np.abs(got - expected), initial=0.0) / (size or 1.0))

    return max(jax.tree.leaves(jax.tree.map(one, got, expected)))
