"""Cells of every kind as layers: as under ``nn.RNN``, and under conditions row by row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from tests.rows import rows
from zoo.recurrent import scanned

from .cells import CELLS, FLOATS, B, Clock, ContinuousTime, D, Decoder, H, LayersFirst, Stateless, T
from .layers import assert_close, assert_same

ROWS = sorted(CELLS)
EMPTY = [name for name in ROWS if name not in ("decoder", "keys")]


def numbers(tree):
    """Random keys as the numbers that they are made of."""

    def number(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(number, tree)


def build(name, **options):
    return scanned(CELLS[name].cell)(**CELLS[name].options, **options)


def initialised(name):
    cell = CELLS[name]
    return build(name).init(jax.random.key(0), cell.carry, cell.xs)


def total(tree):
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum((jnp.sum(jnp.sin(x)) for x in floats), jnp.zeros(()))


@pytest.mark.parametrize("checkpoint_every", rows([None, 4], [4]))
@pytest.mark.parametrize("name", rows(ROWS, ("mLSTM", "cell as an option", "decoder", "keys")))
def test_a_cell_does_what_it_does_under_nn_rnn(name, checkpoint_every):
    case = CELLS[name]
    layer = build(name, checkpoint_every=checkpoint_every)
    variables = layer.init(jax.random.key(0), case.carry, case.xs)
    rnn = nn.RNN(case.cell(**case.options), time_major=True, return_carry=True)
    params = variables.get("params", {})

    def ours(params):
        got = layer.apply({"params": params}, case.carry, case.xs)
        return total(got), numbers(got)

    def theirs(params):
        given = {"params": {"cell": params}}
        got = rnn.apply(given, case.xs, initial_carry=case.carry)
        return total(got), numbers(got)

    got, expected = (
        jax.jit(jax.value_and_grad(run, has_aux=True))(params) for run in (ours, theirs)
    )
    assert_close(got, expected, 1e-5)
    shapes = jax.eval_shape(rnn.init, jax.random.key(0), case.xs, initial_carry=case.carry)
    assert jax.tree.map(jnp.shape, shapes["params"]["cell"]) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("reverse", rows([False, True], [True]))
@pytest.mark.parametrize(
    "name", rows([name for name in ROWS if name != "decoder"], ("mLSTM", "keys", "tokens"))
)
def test_conditions_are_kept_row_by_row(name, reverse):
    """What a row does is what it does alone, in the pieces that its conditions leave."""
    xs, layer = CELLS[name].xs, build(name, reverse=reverse)
    variables = initialised(name)
    lengths, reset = np.array([T, 4, 0]), 2
    resets = np.zeros((T, B), bool)
    resets[reset, :2] = True
    given = {"seq_lengths": jnp.asarray(lengths), "resets": jnp.asarray(resets)}
    carry, ys = jax.jit(layer.apply)(variables, None, xs, **given)
    history = layer.apply(variables, None, xs, **given, method="carries")
    batch_axis = 1 if name == "layers first" else 0
    for row, length in enumerate(lengths):
        x = xs[:, row : row + 1]
        cut = reset + 1 if reverse else reset
        first, last = (x[cut:length], x[:cut]) if reverse else (x[:cut], x[cut:length])
        if row == 2:
            first = last = x[:0]
        ends = [layer.apply(variables, None, part) for part in (first, last)]
        pieces = [y for _, y in (ends[::-1] if reverse else ends)]

        def padded(*parts, length=length):
            whole = np.concatenate(parts)
            return np.concatenate([whole, np.zeros((T - len(whole), *whole.shape[1:]))])

        # What belongs to all rows is compared elsewhere.
        here = jnp.array([row])
        got = jax.tree.map(lambda y, at=here: y[:, at] if y.ndim > 1 else None, ys)
        wanted = jax.tree.map(lambda *y: padded(*y) if y[0].ndim > 1 else None, *pieces)
        assert_close(got, wanted, 1e-5)
        got = jax.tree.map(lambda x, at=here: jnp.take(x, at, axis=batch_axis), carry)
        assert_close(numbers(got), numbers(ends[1][0]), 1e-5)
    end = jax.tree.map(lambda x: jnp.take(x, 0 if reverse else T, axis=0), history)
    if name != "layers first":
        assert_close(numbers(end), numbers(carry))


@pytest.mark.parametrize("name", ROWS)
def test_steps_are_the_sequence(name):
    case, layer, variables = CELLS[name], build(name), initialised(name)
    expected, ys = layer.apply(variables, case.carry, case.xs)
    carry, outputs = case.carry, []
    step = jax.jit(lambda carry, x: layer.apply(variables, carry, x, method="step"))
    for x in case.xs:
        carry, y = step(carry, x)
        outputs.append(y)
    assert_close(numbers(carry), numbers(expected), 1e-5)
    assert_close(jax.tree.map(lambda *y: jnp.stack(y), *outputs), ys, 1e-5)


@pytest.mark.parametrize("name", rows(ROWS, ("mLSTM", "CTRNN", "tokens")))
def test_a_poisoned_row_ends_at_its_reset(name):
    case, layer, variables = CELLS[name], build(name), initialised(name)
    if case.carry is not None or not jnp.issubdtype(case.xs.dtype, jnp.floating):
        pytest.skip("it has no resets, or no NaN")
    resets = jnp.zeros((T, B), bool).at[3, 1].set(True)
    xs = case.xs.at[1, 1].set(jnp.nan)

    def loss(variables):
        carry, ys = layer.apply(variables, None, xs, resets=resets)
        return total(jax.tree.map(lambda y: y[3:], ys)), (carry, ys)

    gradients, (_, ys) = jax.grad(loss, has_aux=True)(variables)
    _, clean = layer.apply(variables, None, case.xs, resets=resets)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradients))
    for got, wanted in zip(jax.tree.leaves(ys), jax.tree.leaves(clean), strict=True):
        if got.ndim == 1:
            continue
        assert_close(got[3:], wanted[3:], 1e-5)
        if jnp.issubdtype(got.dtype, jnp.floating):
            assert bool(jnp.isnan(got[1:3, 1]).all())
        else:
            assert not bool(got[1:3, 1].any())


@pytest.mark.parametrize("shape", [(5, 0), (0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("checkpoint_every", rows([None, 2], [2]))
@pytest.mark.parametrize("name", EMPTY)
def test_nothing_in_and_nothing_out(name, checkpoint_every, shape):
    case, layer = CELLS[name], build(name, checkpoint_every=checkpoint_every)
    variables = initialised(name)
    xs = jnp.zeros((*shape, *case.xs.shape[2:]), case.xs.dtype)
    ones = jnp.ones(shape, bool)
    for given in ({}, {"mask": ones, "resets": ones, "seq_lengths": jnp.zeros(shape[1], int)}):

        def loss(variables, given=given):
            carry, ys = layer.apply(variables, None, xs, **given)
            rows = [y for y in jax.tree.leaves(ys) if y.ndim > 1]
            return total(rows), (carry, rows)

        gradients, (_, rows) = jax.grad(loss, has_aux=True)(variables)
        assert {y.shape[:2] for y in rows} == {shape}
        assert not any(bool(jnp.any(x)) for x in jax.tree.leaves(gradients))


def test_two_batch_axes_and_time_elsewhere():
    xs = jnp.stack([FLOATS, 2 * FLOATS], 1)
    for name in ("mLSTM", "whole numbers"):
        variables = initialised(name)
        lengths = jnp.array([[6, 3, 0], [1, 2, 6]])
        carry, ys = build(name).apply(variables, None, xs, seq_lengths=lengths)
        late = build(name, time_axis=-2 if name == "mLSTM" else 2)
        got = late.apply(variables, None, jnp.moveaxis(xs, 0, 2), seq_lengths=lengths)
        assert_close(got, (carry, jax.tree.map(lambda y: jnp.moveaxis(y, 0, 2), ys)))
        one = build(name).apply(variables, None, xs[:, 1], seq_lengths=lengths[1])
        assert_close(jax.tree.map(lambda x: x[1], carry), one[0])


@pytest.mark.parametrize("batch", [B, H])
def test_what_belongs_to_all_rows_moves_where_one_of_them_does(batch):
    layer, xs = scanned(Clock)(features=H), jnp.broadcast_to(FLOATS[:, :1], (T, batch, D))
    variables = layer.init(jax.random.key(0), None, xs)
    mask = jnp.ones((T, batch), bool).at[2].set(False).at[3, 1:].set(False)
    (_, count), _ = layer.apply(variables, None, xs, mask=mask)
    assert count == T - 1
    some_reset = jnp.zeros((T, batch), bool).at[4, 0].set(True)
    (_, count), _ = layer.apply(variables, None, xs, resets=some_reset)
    assert count == T
    all_reset = some_reset.at[4].set(True)
    (_, count), _ = layer.apply(variables, None, xs, resets=all_reset)
    assert count == T - 4
    # Who skips the step has no say.
    (_, count), _ = layer.apply(
        variables, None, xs, resets=some_reset, mask=jnp.ones_like(some_reset).at[4, 1:].set(False)
    )
    assert count == T - 4
    history = layer.apply(variables, None, xs, method="carries")
    assert_same(history[1], jnp.arange(T + 1))
    (_, count), _ = layer.apply(variables, (jnp.zeros((batch, H)), 7), xs)
    assert count == T + 7


def test_an_output_of_all_rows_is_kept_for_every_step():
    layer = scanned(Stateless)(features=H)
    variables = layer.init(jax.random.key(0), None, FLOATS)
    _, (_, twos) = layer.apply(variables, None, FLOATS, seq_lengths=jnp.array([4, 1, 0]))
    assert_same(twos, jnp.array([2.0, 2, 2, 2, 0, 0]))


def test_shapes_that_agree_by_chance_are_no_batch():
    class Mixing(nn.RNNCellBase):
        num_feature_axes = 1

        @nn.compact
        def __call__(self, carry, x):
            h, mean = carry
            return (h + x.sum(-1, keepdims=True), mean + 1), h

        @nn.nowrap
        def initialize_carry(self, rng, input_shape):
            return jnp.zeros((*input_shape[:-1], 1)), jnp.zeros(3)

    (_, mean), _ = scanned(Mixing)().apply({}, None, FLOATS, seq_lengths=jnp.array([4, 1, 0]))
    assert_same(mean, jnp.full(3, 4.0))


def test_a_cell_that_merges_batch_axes_has_no_conditions():
    class Merging(nn.RNNCellBase):
        num_feature_axes = 1

        def __call__(self, carry, x):
            return carry + x.repeat(2, axis=0), x

        @nn.nowrap
        def initialize_carry(self, rng, input_shape):
            return jnp.zeros((2 * input_shape[0], input_shape[1]))

    layer = scanned(Merging)()
    assert layer.apply({}, None, FLOATS)[0].shape == (2 * B, D)
    with pytest.raises(ValueError, match=r"carry: expected leaves that have the batch axes \(3,\)"):
        layer.apply({}, None, FLOATS, seq_lengths=jnp.array([1, 2, 3]))


def test_a_cell_without_an_initial_carry_says_what_it_needs():
    layer = scanned(Decoder)(features=H)
    carry = CELLS["decoder"].carry
    with pytest.raises(ValueError, match=r"carry: expected one, got None.* initialize_carry"):
        layer.init(jax.random.key(0), None, FLOATS)
    variables = layer.init(jax.random.key(0), carry, FLOATS)
    with pytest.raises(ValueError, match=r"resets.* Decoder has no initial carry"):
        layer.apply(variables, carry, FLOATS, resets=jnp.ones((T, B), bool))
    lengths = jnp.array([T, 2, 0])
    (state, token), (logits, tokens) = layer.apply(variables, carry, FLOATS, seq_lengths=lengths)
    short, _ = layer.apply(variables, carry, FLOATS[:2])
    assert_close((state[0][1], state[1][1], token[1]), (*(x[1] for x in short[0]), short[1][1]))
    assert token[2] == carry[1][2]
    assert not logits[2:, 1].any() and not tokens[2:, 1].any()


def test_a_step_that_changes_the_carry_is_refused_in_words():
    class Growing(nn.RNNCellBase):
        num_feature_axes = 1
        after: int = 0

        def __call__(self, h, x):
            return [jnp.concatenate([h, h], -1), (h, h), x > 0, h.astype(float)][self.after], x

        @nn.nowrap
        def initialize_carry(self, rng, input_shape):
            return jnp.zeros(input_shape, int)

    for after in range(4):
        layer = scanned(Growing)(after=after)
        if after == 2:
            layer.apply({}, None, FLOATS)
            continue
        with pytest.raises(TypeError, match="expected a step of Growing to return a carry like"):
            layer.apply({}, None, FLOATS)


@pytest.mark.parametrize("name", ["CTRNN", "cell in a cell", "cell as an option", "layers first"])
def test_cells_in_stacks_and_in_both_directions(name):
    case = CELLS[name]
    width = 2 if name == "CTRNN" else H
    options = {"layer": scanned(case.cell), **case.options}
    assert build(name).output_features == width
    for kind, more, wide in (("stack", {"num_layers": 3}, width), ("bidirectional", {}, 2 * width)):
        layer = registry.build(kind, **options, **more)
        assert layer.output_features == wide
        given = {"seq_lengths": jnp.array([T, 3, 0]), "resets": jnp.zeros((T, B), bool)}
        if name == "layers first":
            given = {}
        variables = layer.init(jax.random.key(0), None, FLOATS)
        _, ys = layer.apply(variables, None, FLOATS, **given)
        assert ys.shape == (T, B, wide)
        # Every layer has a cell of its own.
        assert all(tree for tree in variables["params"].values())


def test_several_outputs_have_no_width():
    with pytest.raises(TypeError, match="output_features: expected Stateless to return one array"):
        _ = scanned(Stateless)(features=H).output_features


@pytest.mark.parametrize("name", ROWS)
def test_every_cell_has_a_table_and_a_description(name):
    pytest.importorskip("rich")
    case, layer = CELLS[name], build(name)
    assert "Total Parameters" in layer.tabulate(jax.random.key(0), case.carry, case.xs)
    if case.carry is None and jnp.issubdtype(case.xs.dtype, jnp.floating):
        assert "total" in layer.describe((T, B, D))


@pytest.mark.parametrize("kind", ["stack", "bidirectional"])
def test_composites_of_cells_have_a_table(kind):
    pytest.importorskip("rich")
    more = {"num_layers": 2} if kind == "stack" else {}
    layer = registry.build(kind, layer=scanned(ContinuousTime), units=H, **more)
    table = layer.tabulate(jax.random.key(0), None, FLOATS, console_kwargs={"width": 200})
    variables = layer.init(jax.random.key(0), None, FLOATS)
    count = sum(x.size for x in jax.tree.leaves(variables))
    assert f"Total Parameters: {count:,}" in table


@pytest.mark.parametrize("option", ["unroll", "reverse", "step", "history", "output_features"])
def test_options_of_the_layer_are_no_options_of_a_cell(option):
    cell = type("Clashing", (LayersFirst,), {"__annotations__": {option: int}, option: 1})
    with pytest.raises(ValueError, match=f"Clashing has options of the layer's: .*{option}"):
        scanned(cell)
