"""Values and gradients of a layer and of another library's, from the same numbers.

What another library computes is written as a function of our own parameters, carry and inputs, so
that its derivatives come out by our names and in our shapes.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray
Results = tuple[list[Array], Any]


class Numbers(NamedTuple):
    """What both sides are given.

    Attributes:
      params: the layer's parameters.
      start: its carry, or None for the one at rest.
      xs: inputs (T, B, *space, D).
      given: other arguments of the call, by name; differentiated too.
      weights: of the arrays of the last carry and of ys in the sum that is differentiated.
    """

    params: Any
    start: Any
    xs: Array
    given: dict[str, Array]
    weights: list[Array]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.params, self.start, self.xs, self.given


def numbers(layer: Any, inputs: tuple[int, ...], *, rest: bool = False, **given: Array) -> Numbers:
    """Draws float64 numbers for inputs (T, B, *space, D) of this shape, none of them zero."""
    rng = np.random.default_rng(0)

    def drawn(tree: Any, scale: float = 1.0) -> Any:
        return jax.tree.map(lambda x: scale * rng.standard_normal(x.shape), tree)

    xs = rng.standard_normal(inputs)
    spec, ys = jax.eval_shape(layer.init_with_output, jax.random.key(0), None, xs)[0]
    params = jax.eval_shape(layer.init, jax.random.key(0), None, xs)["params"]
    start = drawn(spec)
    if isinstance(start, tuple) and len(start) == 4:
        # The normaliser n is at least 1 after any step of an sLSTM.
        start = (start[0], 1 + abs(start[1]), *start[2:])
    weights = jax.tree.leaves(drawn((spec, ys)))
    return Numbers(drawn(params, 0.5), None if rest else start, xs, given, weights)


def by_jax(apply: Callable[..., Any], of: Numbers) -> Results:
    """Runs ``apply(params, start, xs, given)``; returns carry and ys, and gradients by all four."""

    def loss(*arguments: Any) -> Any:
        outputs = jax.tree.leaves(apply(*arguments))
        total = sum((w * y).sum() for w, y in zip(of.weights, outputs, strict=True))
        return total, outputs

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    (_, outputs), gradients = run(*of.arguments)
    return jax.tree.map(np.asarray, (outputs, gradients))


def by_layer(layer: Any, of: Numbers) -> Results:
    """Runs one of our layers."""

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        return layer.apply({"params": params}, start, xs, **given)

    return by_jax(apply, of)


def by_torch(apply: Callable[..., Any], of: Numbers) -> Results:
    """Does what ``by_jax`` does, with tensors."""
    import torch

    leaves, tree = jax.tree.flatten(of.arguments)
    tensors = [torch.tensor(x, requires_grad=True) for x in leaves]
    outputs = jax.tree.leaves(apply(*jax.tree.unflatten(tree, tensors)))
    pairs = zip(of.weights, outputs, strict=True)
    gradients = torch.autograd.grad(sum((torch.tensor(w) * y).sum() for w, y in pairs), tensors)
    values = [y.detach().numpy() for y in outputs]
    return values, jax.tree.unflatten(tree, [x.numpy() for x in gradients])


def assert_agree(got: Results, wanted: Results, tolerance: float = 1e-10) -> None:
    """Equal within ``tolerance`` of each array's largest entry."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    pairs = zip(jax.tree.leaves_with_path(got), jax.tree.leaves(wanted), strict=True)
    for (path, a), b in pairs:
        assert a.dtype == b.dtype == np.float64 and a.shape == b.shape
        error, largest = np.abs(a - b).max(), np.abs(b).max()
        assert largest > 0 and error <= tolerance * largest, jax.tree_util.keystr(path)


def by_keras(name: str, options: dict[str, Any], of: Numbers) -> Results:
    """Runs a convolutional LSTM of Keras, whose gates are i, f, c and o.

    For a process of its own: Keras has one backend per process, which here has to be JAX.
    """
    os.environ["KERAS_BACKEND"] = "jax"
    jax.config.update("jax_enable_x64", True)
    import keras

    # Its own tanh rounds float64 to float32.
    more = {"activation": jnp.tanh, "return_sequences": True, "return_state": True}
    layer = getattr(keras.layers, name)(**options, **more, dtype="float64")
    layer.build((of.xs.shape[1], of.xs.shape[0], *of.xs.shape[2:]))
    fixed = [v.value for v in layer.non_trainable_variables]

    def reordered(x: Any) -> Any:
        i, g, f, o = jnp.split(x, 4, axis=-1)
        return jnp.concatenate([i, f, g, o], axis=-1)

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        bias = params["ih"]["bias"] + params["hh"]["bias"]
        weights = [*map(reordered, (params["ih"]["kernel"], params["hh"]["kernel"], bias))]
        (c, h), xs = start, xs.swapaxes(0, 1)
        (ys, h, c), _ = layer.stateless_call(weights, fixed, xs, initial_state=[h, c])
        return (c, h), ys.swapaxes(0, 1)

    return by_jax(apply, of)
