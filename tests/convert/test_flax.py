"""Flax Linen and NNX, which are always installed: hand-made scans, paths, options."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from . import reference
from .comparison import assert_close, assert_same

KEY = jax.random.key(0)
X = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)
BATCH_FIRST = np.swapaxes(X, 0, 1)


def randomised(module, *arguments):
    """Random variables of a module; nothing is compiled for them."""
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(module.init, KEY, *arguments)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), shapes)


CELLS = {
    "gru": lambda: nn.GRUCell(4),
    "lstm": lambda: nn.LSTMCell(4),
    "optimized": lambda: nn.OptimizedLSTMCell(4),
    "simple": lambda: nn.SimpleCell(4, activation_fn=nn.relu),
    "residual": lambda: nn.SimpleCell(4, residual=True),
    "mgu": lambda: nn.MGUCell(4),
    "mgu, no reset": lambda: nn.MGUCell(4, reset_gate=False),
    "gru, other functions": lambda: nn.GRUCell(4, gate_fn=nn.hard_sigmoid, activation_fn=nn.elu),
}


@pytest.mark.parametrize("cell", CELLS)
def test_hand_made_scan(cell: str) -> None:
    cell = CELLS[cell]()
    scan = nn.scan(type(cell), variable_broadcast="params", split_rngs={"params": False})
    fields = {k: v for k, v in vars(cell).items() if k in type(cell).__dataclass_fields__}
    module = scan(**{k: v for k, v in fields.items() if k not in ("parent", "name")})
    start = jax.tree.map(lambda a: a + 0.5, cell.initialize_carry(KEY, (2, 3)))
    variables = randomised(module, start, X)
    expected = module.apply(variables, start, X)

    config, ours = convert.from_linen(variables, cell)
    assert "time_axis" not in config
    assert_close(reference.run(config, ours, X, start), expected)
    if not getattr(cell, "residual", False):
        assert_same(convert.to_linen(config, ours, cell=""), variables)


class Model(nn.Module):
    """Recurrent modules made in a compact method lie beside each other, not in nn.RNN."""

    @nn.compact
    def __call__(self, xs):
        first = nn.RNN(nn.GRUCell(4), name="vanishes")(xs)
        first = nn.RNN(nn.GRUCell(4))(first)
        both = nn.Bidirectional(nn.RNN(nn.LSTMCell(4)), nn.RNN(nn.LSTMCell(4)), name="both")(xs)
        return first, both


def test_paths_in_a_compact_parent() -> None:
    variables = randomised(Model(), BATCH_FIRST)
    assert set(variables["params"]) == {"GRUCell_0", "GRUCell_1", "LSTMCell_0", "LSTMCell_1"}
    first, both = Model().apply(variables, BATCH_FIRST)

    config, ours = convert.from_linen(
        variables, nn.GRUCell(4), path=["GRUCell_0", "GRUCell_1"], time_axis=-2
    )
    assert_close(reference.run(config, ours, BATCH_FIRST)[1], first)
    config, ours = convert.from_linen(
        variables, nn.LSTMCell(4), path="LSTMCell_0", backward="LSTMCell_1", time_axis=1
    )
    assert config == {
        "name": "bidirectional",
        "layer": {"name": "scan_lstm", "features": 4},
        "time_axis": 1,
    }
    assert_close(reference.run(config, ours, BATCH_FIRST)[1], both)
    with pytest.raises(ConversionError, match="one backward cell for each"):
        convert.from_linen(variables, path=["LSTMCell_0"], backward=["LSTMCell_0", "LSTMCell_1"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"time_axis": -2}),
        ({"time_major": True}, {}),
        ({"reverse": True, "keep_order": True}, {"reverse": True, "time_axis": -2}),
    ],
)
@pytest.mark.parametrize("api", [nn, nnx])
def test_options_of_rnn(api, options: dict, expected: dict) -> None:
    xs = X if options.get("time_major") else BATCH_FIRST
    if api is nn:
        rnn = nn.RNN(nn.SimpleCell(4), return_carry=True, **options)
        variables = randomised(rnn, xs)
        carry, ys = rnn.apply(variables, xs)
        config, ours = convert.from_linen(variables, rnn)
    else:
        cell = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))
        rnn = nnx.RNN(cell, return_carry=True, **options)
        carry, ys = rnn(xs)
        config, ours = convert.from_nnx(rnn)
    assert config == {"name": "scan_elman", "features": 4, **expected}
    assert_close(reference.run(config, ours, xs), (carry, ys))


@pytest.mark.parametrize("api", [nn, nnx])
def test_reversed_outputs_are_announced(api) -> None:
    if api is nn:
        rnn = nn.RNN(nn.SimpleCell(4), reverse=True)
        variables = randomised(rnn, BATCH_FIRST)
        theirs = rnn.apply(variables, BATCH_FIRST)
    else:
        rnn = nnx.RNN(nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0)), reverse=True)
        theirs = rnn(BATCH_FIRST)
    with pytest.warns(UserWarning, match="reversed order") as caught:
        found = convert.from_linen(variables, rnn) if api is nn else convert.from_nnx(rnn)
    assert caught[0].filename == __file__
    assert_close(reference.run(*found, BATCH_FIRST)[1], theirs[:, ::-1])


@pytest.mark.parametrize("api", [nn, nnx])
def test_sequences_of_rnns(api) -> None:
    def cell(width: int):
        return (
            nn.RNN(nn.GRUCell(4)) if api is nn else nnx.RNN(nnx.GRUCell(width, 4, rngs=nnx.Rngs(0)))
        )

    def both(width: int):
        return api.Bidirectional(cell(width), cell(width))

    model = api.Sequential([both(3), both(8), both(8)] if api is nn else [])
    if api is nn:
        variables = randomised(model, BATCH_FIRST)
        theirs = model.apply(variables, BATCH_FIRST)
        config, ours = convert.from_linen(variables, model)
        assert_same(convert.to_linen(config, ours), variables)
    else:
        model = nnx.Sequential(both(3), both(8), both(8))
        theirs = model(BATCH_FIRST)
        config, ours = convert.from_nnx(model)
    assert config["name"] == "stack" and config["layer"]["name"] == "bidirectional"
    assert_close(reference.run(config, ours, BATCH_FIRST)[1], theirs)


def test_layers_without_biases_become_layers_with_zero_biases() -> None:
    rng = np.random.default_rng(5)
    for gates, xs in ((3, X), (4, X), (1, X)):
        state = {
            "weight_ih_l0": rng.normal(size=(gates * 4, 3)).astype(np.float32),
            "weight_hh_l0": rng.normal(size=(gates * 4, 4)).astype(np.float32),
        }
        config, ours = convert.from_torch(state)
        assert config["use_bias"] is False
        expected = reference.run(config, ours, xs)
        for there, back in (
            (convert.to_linen, convert.from_linen),
            (convert.to_nnx, convert.from_nnx),
        ):
            again = back(there(config, ours))
            assert "use_bias" not in again[0]
            assert_close(reference.run(*again, xs), expected)


def test_nnx_takes_what_to_nnx_gives() -> None:
    source = nnx.RNN(nnx.OptimizedLSTMCell(3, 4, rngs=nnx.Rngs(0)))
    config, ours = convert.from_nnx(source)
    for kind, optimized in ((nnx.LSTMCell, False), (nnx.OptimizedLSTMCell, True)):
        cell = kind(3, 4, rngs=nnx.Rngs(7))
        nnx.update(cell, convert.to_nnx(config, ours, cell="", optimized=optimized))
        assert_close(nnx.RNN(cell)(BATCH_FIRST), source(BATCH_FIRST))


def test_what_flax_does_and_no_layer_does() -> None:
    mixed = nn.Sequential([nn.RNN(nn.GRUCell(4)), nn.RNN(nn.GRUCell(4), time_major=True)])
    variables = randomised(mixed, BATCH_FIRST)
    with pytest.raises(ConversionError, match="time_axis"):
        convert.from_linen(variables, mixed)

    turning = nn.Sequential([nn.RNN(nn.GRUCell(4), reverse=True) for _ in range(2)])
    variables = randomised(turning, BATCH_FIRST)
    with pytest.raises(ConversionError, match="the other way"):
        convert.from_linen(variables, turning)

    other = nn.RNN(nn.ConvLSTMCell(4, (3,)))
    variables = randomised(other, np.ones((2, 5, 6, 3), np.float32))
    with pytest.raises(ConversionError, match=r"\['hh', 'ih'\].*expected the parameters"):
        convert.from_linen(variables, other)

    variables = randomised(nn.RNN(nn.GRUCell(4)), BATCH_FIRST)
    both = nn.Bidirectional(nn.RNN(nn.GRUCell(4)), nn.RNN(nn.GRUCell(4)))
    with pytest.raises(ConversionError, match="1 layers of 2 directions"):
        convert.from_linen(variables, both)


@pytest.mark.parametrize("merge_fn", [jnp.add, jnp.multiply, lambda a, b: a - 2 * b])
@pytest.mark.parametrize("depth", [1, 2])
def test_merged_directions(merge_fn, depth: int) -> None:
    layers = [
        nn.Bidirectional(nn.RNN(nn.GRUCell(4)), nn.RNN(nn.GRUCell(4)), merge_fn=merge_fn)
        for _ in range(depth)
    ]
    model = nn.Sequential(layers)
    variables = randomised(model, BATCH_FIRST)
    config, ours = convert.from_linen(variables, model)
    inner = config["layer"] if depth == 2 else config
    assert inner["merge"] == {jnp.add: "sum", jnp.multiply: "mul"}.get(merge_fn, merge_fn)
    assert_close(reference.run(config, ours, BATCH_FIRST)[1], model.apply(variables, BATCH_FIRST))
    back = convert.to_linen(config, ours)["params"]
    assert_same(back if depth == 2 else {"layers_0": back}, variables["params"])


def test_dtype_of_the_cell_is_kept() -> None:
    rnn = nn.RNN(nn.GRUCell(4, dtype=jnp.bfloat16))
    config, _ = convert.from_linen(randomised(nn.RNN(nn.GRUCell(4)), BATCH_FIRST), rnn)
    assert config["dtype"] == "bfloat16" and "param_dtype" not in config


def test_a_function_without_a_name_stays_a_function() -> None:
    def own(x):
        return np.sin(x) if isinstance(x, np.ndarray) else jnp.sin(x)

    rnn = nn.RNN(nn.GRUCell(4, activation_fn=own))
    variables = randomised(rnn, BATCH_FIRST)
    config, ours = convert.from_linen(variables, rnn)
    assert config["activation_fn"] is own
    assert_close(reference.run(config, ours, BATCH_FIRST)[1], rnn.apply(variables, BATCH_FIRST))
