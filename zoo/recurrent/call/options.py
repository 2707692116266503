"""The table of the options: what each of them is, and what it takes, for every layer alike."""

import dataclasses
from collections.abc import Iterable, Mapping

import flax.linen as nn

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.engine import IMPLEMENTATIONS


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
      name: as layers have it.
      accepts: what it takes, in words.
      description: what it does, in one line.
      check: returns the value to use, or raises TypeError or ValueError.
    """

    name: str
    accepts: str
    description: str
    check: takes.Check


def implementation(*choices: str) -> Option:
    """The option ``implementation`` of a layer that has these."""
    accepts = f"one of {', '.join(choices)}"
    check = takes.implementation(*choices)
    return Option("implementation", accepts, "how the time loop is run.", check)


_INT, _BOOL, _RATE = "int >= 1", "bool", "number in [0, 1)"
_STEPS = f"{_INT}, or None"
_DTYPE = "floating-point dtype of 16 bits or more, or its name"
_INITIALISER = "function (key, shape, dtype) -> array"
_ACTIVATION = "function of one array, or its name in jax.nn"

_ROWS = (
    Option("features", _INT, "H, the width of the hidden state.", takes.positive_int),
    Option("time_axis", "int", "where time is in xs, ys, masks and resets.", takes.integer),
    Option("reverse", _BOOL, "whether time runs backwards.", takes.boolean),
    Option("unroll", _INT, "steps per iteration of the time loop.", takes.positive_int),
    Option("use_bias", _BOOL, "whether the cell has biases.", takes.boolean),
    Option("gate_fn", _ACTIVATION, "activation of the gates.", takes.activation),
    Option("activation_fn", _ACTIVATION, "activation of the candidate state.", takes.activation),
    Option("kernel_init", _INITIALISER, "of the input kernels.", takes.initializer),
    Option("recurrent_kernel_init", _INITIALISER, "of the recurrent kernels.", takes.initializer),
    Option("bias_init", _INITIALISER, "of the biases.", takes.initializer),
    Option("carry_init", _INITIALISER, "of the initial carry.", takes.initializer),
    Option("learned_carry", _BOOL, "whether the initial carry is a parameter.", takes.boolean),
    Option("dtype", f"{_DTYPE}, or None", "of products and of ys.", takes.dtype_or_none),
    Option("param_dtype", _DTYPE, "of the parameters.", takes.dtype),
    Option("carry_dtype", _DTYPE, "of the carry, whatever comes in.", takes.dtype),
    Option("precision", "see jax.lax.Precision", "of the products.", takes.precision),
    Option(
        "checkpoint_every",
        _STEPS,
        "steps between what is kept for the backward pass.",
        takes.positive_int_or_none,
    ),
    Option(
        "truncate_every", _STEPS, "steps between cuts of the gradient.", takes.positive_int_or_none
    ),
    Option("dropout_rate", _RATE, "of the inputs, or between layers.", takes.rate),
    Option("recurrent_dropout_rate", _RATE, "of the hidden state in products.", takes.rate),
    Option("zoneout_rate", _RATE, "probability of keeping the previous state.", takes.rate),
    implementation(*IMPLEMENTATIONS),
    Option("heads", _INT, "blocks of the recurrent kernels.", takes.positive_int),
    Option("peepholes", _BOOL, "whether gates see the cell state.", takes.boolean),
    Option("coupled_gates", _BOOL, "whether the forget gate is 1 - i.", takes.boolean),
    Option("forget_bias", "finite number", "added to the forget gate's bias.", takes.finite),
    Option("projection", _STEPS, "P, the width of a projected h.", takes.positive_int_or_none),
    Option("reset_gate", _BOOL, "whether the gate acts in the candidate.", takes.boolean),
    Option("epsilon", "finite number >= 0", "added to the variance.", takes.finite_not_negative),
    Option("layer", "name, mapping or layer class", "the inner layer.", takes.anything),
    Option(
        "merge",
        "concat, sum, mul, mean, a function of both outputs, or None",
        "how the outputs of both directions become one.",
        takes.function_or_one_of("concat", "sum", "mul", "mean", None),
    ),
    Option("num_layers", _STEPS, "how many layers.", takes.positive_int_or_none),
    Option("layers", "list of layers, or None", "layers that are not equal.", takes.anything),
    Option("skip", _BOOL, "whether every layer sees xs too.", takes.boolean),
    Option("residual", _BOOL, "adds a layer's input to its output.", takes.boolean),
    Option("layer_norm", _BOOL, "normalises what goes between layers.", takes.boolean),
)

TABLE: dict[str, Option] = {row.name: row for row in _ROWS}


def table(layer: type[nn.Module]) -> Mapping[str, Option]:
    """What is known of the options of a layer's class: the table, and what the class adds to it."""
    own = (row for base in reversed(layer.__mro__) for row in vars(base).get("own_options", ()))
    return TABLE | {row.name: row for row in own}


def check(layer: nn.Module, names: Iterable[str] | None = None) -> None:
    """Checks the options of a layer, and replaces NumPy's scalars among them by Python's.

    Args:
      layer: a module whose options are dataclass fields.
      names: those to look at; all by default. What is not in the table belongs to a layer of
        somebody else's, who checks it.

    Raises:
      TypeError: an option is of another kind than the table says.
      ValueError: it is of the right kind and has no possible value.
    """
    known = table(type(layer))
    for name in type(layer).__dataclass_fields__ if names is None else names:
        if (row := known.get(name)) is None:
            continue
        given = getattr(layer, name)
        value = row.check(name, given)
        if value is not given:
            object.__setattr__(layer, name, value)
