"""dm-haiku and equinox, which have cells and no layers."""

from typing import Any

import numpy as np

from .shapes import FEATURES, Shape, nested, randomise


def _by_hand(steps: list[list[Any]], x: np.ndarray, lengths: Any, start: Any) -> Any:
    """Runs cells of libraries that have no layers: steps[layer][direction](x_t, state)."""
    batch, time = x.shape[:2]
    lengths = np.full(batch, time) if lengths is None else lengths
    ends = []
    for layer, cells in enumerate(steps):
        outputs, finals = [], []
        for side, step in enumerate(cells):
            state = start[layer][side]
            ys = [None] * time
            for t in range(time) if side == 0 else range(time - 1, -1, -1):
                valid = (t < lengths)[:, None]
                new = [np.asarray(a) for a in step(x[:, t], state)]
                state = [np.where(valid, n, s) for n, s in zip(new, state, strict=True)]
                ys[t] = np.where(valid, state[0], 0)
            outputs.append(np.stack(ys, 1))
            finals.append(state)
        x = np.concatenate(outputs, -1)
        ends.append(finals)
    return x, ends


class Haiku:
    """dm-haiku cores, run step by step."""

    cells = ("gru_reset_before", "lstm", "rnn_relu")
    biases, float64 = (True,), True

    def _core(self, shape: Shape) -> Any:
        import haiku as hk

        kinds = {"gru_reset_before": hk.GRU, "lstm": hk.LSTM, "rnn_relu": hk.VanillaRNN}
        return hk.without_apply_rng(hk.transform(lambda x, s: kinds[shape.cell](FEATURES)(x, s)))

    def _name(self, shape: Shape) -> str:
        return {"gru_reset_before": "gru", "lstm": "lstm", "rnn_relu": "vanilla_rnn"}[shape.cell]

    def _names(self, shape: Shape) -> list[list[str]]:
        name = self._name(shape)
        return [
            [
                f"{name}_{layer * shape.directions + side}".removesuffix("_0")
                for side in range(shape.directions)
            ]
            for layer in range(shape.layers)
        ]

    def build(self, shape: Shape) -> Any:
        import haiku as hk
        import jax

        rng, params = shape.rng(), {}
        for layer, names in enumerate(self._names(shape)):
            for name in names:
                x = np.zeros((1, shape.inputs(layer)), shape.dtype)
                h = np.zeros((1, FEATURES), shape.dtype)
                state = hk.LSTMState(h, h) if shape.has_c else h
                found = self._core(shape).init(jax.random.PRNGKey(0), x, state)
                for path, arrays in found.items():
                    renamed = path.replace(self._name(shape), name, 1)
                    params[renamed] = {k: randomise(rng, a) for k, a in arrays.items()}
        return shape, params

    def plain(self, network: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        shape, params = network
        sides = list(zip(*self._names(shape), strict=True))
        options: dict[str, Any] = {"time_axis": 1}
        if shape.directions == 2:
            options["backward"] = list(sides[1])
        return (params, list(sides[0])), options

    def run(self, network: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        import haiku as hk
        import jax

        _, params = network
        compiled = jax.jit(self._core(shape).apply)

        def step(name: str) -> Any:
            own = {
                path.replace(name, self._name(shape), 1): arrays
                for path, arrays in params.items()
                if path == name or path.startswith(name + "/")
            }

            def call(x_t: Any, state: Any) -> Any:
                given = hk.LSTMState(*state) if shape.has_c else state[0]
                _, new = compiled(own, x_t, given)
                return list(new) if shape.has_c else [new]

            return call

        steps = [[step(name) for name in names] for names in self._names(shape)]
        return _by_hand(steps, x, lengths, start)

    def convert(self, convert: Any, network: Any) -> Any:
        arguments, options = self.plain(network)
        return convert.from_haiku(*arguments, **options)

    def load(self, convert: Any, shape: Shape, config: Any, variables: Any) -> Any:
        return shape, convert.to_haiku(config, variables)

    def state(self, shape: Shape, start: Any) -> Any:
        import haiku as hk

        return nested(shape, start, lambda s: hk.LSTMState(*s) if shape.has_c else s[0])


class Equinox:
    """equinox cells, run step by step."""

    cells = ("gru", "lstm")
    biases, float64 = (True, False), True

    def build(self, shape: Shape) -> Any:
        import equinox as eqx
        import jax

        kind = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[shape.cell]
        rng = shape.rng()

        def one(layer: int) -> Any:
            cell = kind(
                shape.inputs(layer),
                FEATURES,
                shape.bias,
                np.dtype(shape.dtype),
                key=jax.random.PRNGKey(0),
            )
            return jax.tree.map(lambda a: jax.numpy.asarray(randomise(rng, a)), cell)

        return [[one(layer) for _ in range(shape.directions)] for layer in range(shape.layers)]

    def _arrays(self, cell: Any) -> dict[str, np.ndarray]:
        fields = ("weight_ih", "weight_hh", "bias", "bias_n")
        found = {field: getattr(cell, field, None) for field in fields}
        return {field: np.asarray(a) for field, a in found.items() if a is not None}

    def plain(self, cells: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        sides = list(zip(*[[self._arrays(c) for c in layer] for layer in cells], strict=True))
        options: dict[str, Any] = {"time_axis": 1}
        if len(sides) == 2:
            options["backward"] = list(sides[1])
        return (list(sides[0]),), options

    def run(self, cells: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        import jax

        compiled = jax.jit(lambda cell, x_t, state: jax.vmap(cell)(x_t, state))

        def step(cell: Any) -> Any:
            def call(x_t: Any, state: Any) -> Any:
                new = compiled(cell, x_t, tuple(state) if shape.has_c else state[0])
                return list(new) if shape.has_c else [new]

            return call

        return _by_hand([[step(c) for c in layer] for layer in cells], x, lengths, start)

    def convert(self, convert: Any, cells: Any) -> Any:
        sides = list(zip(*cells, strict=True))
        backward = list(sides[1]) if len(sides) == 2 else None
        return convert.from_equinox(list(sides[0]), backward=backward, time_axis=1)

    def load(self, convert: Any, shape: Shape, config: Any, variables: Any) -> Any:
        cells = convert.to_equinox(config, variables)
        cells = cells if shape.layers > 1 else [cells]
        return [layer if shape.directions == 2 else [layer] for layer in cells]

    def state(self, shape: Shape, start: Any) -> Any:
        return nested(shape, start, lambda s: tuple(s) if shape.has_c else s[0])
