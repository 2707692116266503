"""Flax Linen and Flax NNX."""

import dataclasses
import functools
from typing import Any

import numpy as np

from .shapes import FEATURES, Shape, nested, randomise


# Equal layers share one compilation; both libraries compile at every call outside of jit.
@functools.cache
def _apply_linen() -> Any:
    import jax

    def call(layer: Any, params: Any, x: Any, carry: Any, lengths: Any) -> Any:
        return layer.apply({"params": params}, x, initial_carry=carry, seq_lengths=lengths)

    return jax.jit(call, static_argnums=0)


@functools.cache
def _apply_nnx() -> Any:
    import jax
    from flax import nnx

    def call(graph: Any, state: Any, x: Any, carry: Any, lengths: Any) -> Any:
        return nnx.merge(graph, state)(x, initial_carry=carry, seq_lengths=lengths)

    return jax.jit(call, static_argnums=0)


class Flax:
    biases, float64 = (True,), True

    def _steps(
        self, modules: Any, shape: Shape, x: Any, lengths: Any, start: Any, call: Any
    ) -> Any:
        ends = []
        for index, state in enumerate(start):
            carries = [tuple(s[::-1]) if shape.has_c else s[0] for s in state]
            carry = tuple(carries) if shape.directions == 2 else carries[0]
            carry, x = call(modules, index, x, carry, lengths)
            x = np.asarray(x)
            if lengths is not None:
                x = np.where((np.arange(x.shape[1]) < lengths[:, None])[..., None], x, 0)
            sides = carry if shape.directions == 2 else (carry,)
            ends.append(
                [[np.asarray(a) for a in (s[::-1] if shape.has_c else (s,))] for s in sides]
            )
        return x, ends

    def state(self, shape: Shape, start: Any) -> Any:
        return nested(shape, start, lambda s: (s[1], s[0]) if shape.has_c else s[0])


class Linen(Flax):
    """Flax Linen's nn.RNN and nn.Bidirectional in an nn.Sequential."""

    cells = ("gru", "lstm", "lstm_optimized", "rnn", "rnn_residual", "mgu", "mgu_no_reset")
    default_cells = ("gru", "lstm", "rnn_tanh", "mgu", "mgu_no_reset")

    def _layer(self, shape: Shape) -> Any:
        import flax.linen as nn

        dtypes = {"param_dtype": shape.dtype}

        def cell() -> Any:
            return {
                "gru": lambda: nn.GRUCell(FEATURES, **dtypes),
                "lstm": lambda: nn.LSTMCell(FEATURES, **dtypes),
                "lstm_optimized": lambda: nn.OptimizedLSTMCell(FEATURES, **dtypes),
                "rnn": lambda: nn.SimpleCell(FEATURES, activation_fn=nn.relu, **dtypes),
                "rnn_tanh": lambda: nn.SimpleCell(FEATURES, **dtypes),
                "rnn_residual": lambda: nn.SimpleCell(FEATURES, residual=True, **dtypes),
                "mgu": lambda: nn.MGUCell(FEATURES, **dtypes),
                "mgu_no_reset": lambda: nn.MGUCell(FEATURES, reset_gate=False, **dtypes),
            }[shape.cell]()

        if shape.directions == 2:
            return nn.Bidirectional(nn.RNN(cell()), nn.RNN(cell()), return_carry=True)
        return nn.RNN(cell(), return_carry=True)

    def _sequence(self, shape: Shape) -> Any:
        import flax.linen as nn

        layers = [self._layer(shape) for _ in range(shape.layers)]
        return nn.Sequential(layers) if shape.layers > 1 else layers[0]

    def build(self, shape: Shape) -> Any:
        import jax

        rng, params = shape.rng(), []
        for index in range(shape.layers):
            x = np.zeros((1, 2, shape.inputs(index)), shape.dtype)
            found = self._layer(shape).init(jax.random.PRNGKey(0), x)["params"]
            params.append(jax.tree.map(lambda a: randomise(rng, a), found))
        if shape.layers > 1:
            return shape, {"params": {f"layers_{i}": p for i, p in enumerate(params)}}
        return shape, {"params": params[0]}

    def plain(self, network: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (network[1],), {"time_axis": -2}

    def run(self, network: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        shape, variables = network

        def call(params: Any, index: int, x: Any, carry: Any, lengths: Any) -> Any:
            own = params[f"layers_{index}"] if shape.layers > 1 else params
            return _apply_linen()(self._layer(shape), own, x, carry, lengths)

        return self._steps(variables["params"], shape, x, lengths, start, call)

    def convert(self, convert: Any, network: Any) -> Any:
        return convert.from_linen(network[1], self._sequence(network[0]))

    def load(self, convert: Any, shape: Shape, config: Any, variables: Any) -> Any:
        # The residual connection went into the kernel, so the plain cell is what it goes back to.
        if shape.cell == "rnn_residual":
            shape = dataclasses.replace(shape, cell="rnn_tanh")
        return shape, convert.to_linen(config, variables)


class NNX(Flax):
    """Flax NNX's RNN and Bidirectional in an nnx.Sequential."""

    cells = ("gru", "lstm", "lstm_optimized", "rnn", "rnn_residual")
    default_cells = ("gru", "lstm", "lstm_optimized", "rnn_tanh")

    def _network(self, shape: Shape) -> Any:
        from flax import nnx

        kinds = {
            "gru": (nnx.GRUCell, {}),
            "lstm": (nnx.LSTMCell, {}),
            "lstm_optimized": (nnx.OptimizedLSTMCell, {}),
            "rnn": (nnx.SimpleCell, {"activation_fn": nnx.relu}),
            "rnn_tanh": (nnx.SimpleCell, {}),
            "rnn_residual": (nnx.SimpleCell, {"residual": True}),
        }
        kind, options = kinds[shape.cell]
        dtype = np.dtype(shape.dtype)

        def rnn(inputs: int) -> Any:
            cell = kind(
                inputs, FEATURES, rngs=nnx.Rngs(0), param_dtype=dtype, dtype=dtype, **options
            )
            return nnx.RNN(cell, return_carry=True)

        layers = []
        for index in range(shape.layers):
            sides = [rnn(shape.inputs(index)) for _ in range(shape.directions)]
            layers.append(
                nnx.Bidirectional(*sides, return_carry=True) if len(sides) == 2 else sides[0]
            )
        return nnx.Sequential(*layers) if shape.layers > 1 else layers[0]

    def build(self, shape: Shape) -> Any:
        import jax
        from flax import nnx

        network, rng = self._network(shape), shape.rng()
        params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
        nnx.update(network, jax.tree.map(lambda a: jax.numpy.asarray(randomise(rng, a)), params))
        return network

    def plain(self, network: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        import jax
        from flax import nnx

        params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
        return (jax.tree.map(np.asarray, params),), {"time_axis": -2}

    def run(self, network: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        from flax import nnx

        def call(network: Any, index: int, x: Any, carry: Any, lengths: Any) -> Any:
            own = network.layers[index] if shape.layers > 1 else network
            return _apply_nnx()(*nnx.split(own), x, carry, lengths)

        return self._steps(network, shape, x, lengths, start, call)

    def convert(self, convert: Any, network: Any) -> Any:
        return convert.from_nnx(network)

    def load(self, convert: Any, shape: Shape, config: Any, variables: Any) -> Any:
        from flax import nnx

        if shape.cell == "rnn_residual":
            shape = dataclasses.replace(shape, cell="rnn_tanh")
        network = self._network(shape)
        optimized = shape.cell == "lstm_optimized"
        nnx.update(network, convert.to_nnx(config, variables, optimized=optimized))
        return network
