"""Convolutional LSTM and GRU, for sequences of images and volumes."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.linen.linear import default_kernel_init
from flax.typing import Initializer

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer
from zoo.recurrent.layers.simplified_gru import SimplifiedGRU


@dataclasses.dataclass(frozen=True)
class Window:
    """The positions that a convolution reads, along each axis of space.

    Attributes:
      size: extent of the kernel.
      strides: steps between two outputs.
      padding: "SAME", "VALID" or "CIRCULAR".
      dilation: steps between two positions of the kernel.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    dilation: tuple[int, ...]

    def borders(self, space: tuple[int, ...]) -> list[tuple[int, int]]:
        """How much is added before and after, for inputs of this extent."""
        padding = "SAME" if self.padding == "CIRCULAR" else self.padding
        reach = [(size - 1) * step + 1 for size, step in zip(self.size, self.dilation, strict=True)]
        return list(jax.lax.padtype_to_pads(space, reach, self.strides, padding))

    def output(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """The extent of what a convolution makes of inputs of this extent."""
        every = zip(space, self.borders(space), self.size, self.dilation, self.strides, strict=True)
        return tuple(
            max((extent + sum(pads) - (size - 1) * dilation - 1) // stride + 1, 0)
            for extent, pads, size, dilation, stride in every
        )

    def read(self, x: jax.Array) -> jax.Array:
        """Puts all that one output reads side by side: (..., *space, C) to (..., *output, rows).

        A convolution is then a product with the kernel as a matrix of ``prod(size) * C`` rows.
        """
        axes = len(self.size)
        space, out = x.shape[-1 - axes : -1], self.output(x.shape[-1 - axes : -1])
        pads = [(0, 0)] * (x.ndim - axes - 1) + self.borders(space) + [(0, 0)]
        if any(map(sum, pads)):
            x = jnp.pad(x, pads, mode="wrap" if self.padding == "CIRCULAR" else "constant")
        first = x.ndim - axes - 1
        parts = []
        for offsets in itertools.product(*map(range, self.size)):
            part = x
            for k, offset in enumerate(offsets):
                begin, stride = offset * self.dilation[k], self.strides[k]
                end = begin + (out[k] - 1) * stride + 1
                part = jax.lax.slice_in_dim(part, begin, end, stride, first + k)
            parts.append(part)
        return jnp.concatenate(parts, axis=-1)


class _Convolution:
    """Products with all that a window reads."""

    def __init__(self, product: Product, window: Window):
        self.product, self.window = product, window

    def __call__(self, a: jax.Array, **addends: jax.Array | None) -> tuple[jax.Array, ...]:
        return self.product(self.window.read(a), **addends)


@dataclasses.dataclass(frozen=True)
class ConvCell(Cell):
    """What convolutional cells have in common: where their kernels read."""

    kernel_size: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = (1, 1)
    padding: str = "SAME"
    dilation: tuple[int, ...] = (1, 1)

    @property
    def feature_axes(self) -> int:
        """The axes of space, and the channels."""
        return len(self.kernel_size) + 1

    @property
    def input_window(self) -> Window:
        """Where kernels of the input read."""
        return Window(self.kernel_size, self.strides, self.padding, self.dilation)

    @property
    def state_window(self) -> Window:
        """Where kernels of the state read: the state has one extent throughout."""
        one = (1,) * len(self.kernel_size)
        padding = "CIRCULAR" if self.padding == "CIRCULAR" else "SAME"
        return Window(self.kernel_size, one, padding, one)

    def space(self, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """The extent of the state."""
        return self.input_window.output(inputs)

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Convolves the input with its kernels."""
        return super().project(_Convolution(product, self.input_window), x, weights)

    def of_state(self, recur: Product, weights: Weights) -> Product:
        """Convolves what is multiplied by kernels of the state."""
        return _Convolution(recur, self.state_window)


@dataclasses.dataclass(frozen=True)
class ConvLSTM(ConvCell):
    """The equations of ``ScanConvLSTM``."""

    forget_bias: float = 1.0

    carry_names: ClassVar[tuple[str, ...]] = ("c", "h")

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``ih`` and ``hh``, each of all four gates, i, g, f and o, with a bias."""
        width, bias, size = 4 * self.features, self.use_bias, self.kernel_size
        return {
            "ih": Kernel("input", width, bias=bias, window=size),
            "hh": Kernel("state", width, bias=bias, window=size),
        }

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        c, h = carry
        (sums,) = recur(h, hh=u["ih"])
        i, g, f, o = jnp.split(sums, 4, axis=-1)
        c = self.gate_fn(f + self.forget_bias) * c + self.gate_fn(i) * self.activation_fn(g)
        return c, self.gate_fn(o) * self.activation_fn(c)

    def project(self, product: Product, x: jax.Array, weights: Weights) -> dict[str, jax.Array]:
        """Adds the bias of ``hh`` here: nothing in the step comes between it and the inputs."""
        u = super().project(product, x, weights)
        bias = weights["hh"].get("bias")
        if bias is not None:
            u["ih"] += jnp.broadcast_to(bias, u["ih"].shape).astype(u["ih"].dtype)
        return u


@dataclasses.dataclass(frozen=True)
class ConvGRU(ConvCell, SimplifiedGRU):
    """The equations of ``ScanConvGRU``: the simplified GRU's, of what windows read."""

    def declare(self) -> dict[str, Kernel]:
        """Those of the simplified GRU, each with a window."""
        return {
            name: dataclasses.replace(kernel, window=self.kernel_size)
            for name, kernel in super().declare().items()
        }


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Requires one positive int per axis of space.

    Raises:
      TypeError: it is something else.
      ValueError: there is none, or one of them is not positive.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        cure = "Cure: (3, 3) for images, (3,) for one axis of space."
        raise takes.refusal(TypeError, name, "a tuple of one int per axis of space", value, cure)
    if not value:
        raise takes.refusal(ValueError, name, "a tuple of one int or more", value)
    return tuple(takes.positive_int(name, size) for size in value)


def _sizes_or_one(name: str, value: Any) -> int | tuple[int, ...]:
    """Requires a positive int for all axes of space, or one per axis.

    Raises:
      TypeError: it is something else.
      ValueError: one of them is not positive.
    """
    return _sizes(name, value) if isinstance(value, Sequence) else takes.positive_int(name, value)


class ConvLayer(GatedLayer):
    """Base class of convolutional layers.

    xs has shape (T, *batch, *space, C), conditions (T, *batch); every array of the carry has shape
    (*batch, *space, H). Kernels have shape (*kernel_size, C or H, width) and keep the extent of
    space, except as ``strides`` and ``padding`` of the input's convolution say. Options: see
    ``GatedLayer``; there are no ``heads``.

    Attributes:
      kernel_size: extent of the kernels along each axis of space: (3, 3) for images.
      strides: of the input's convolution, one number for all axes of space, or one per axis.
      padding: of the input's convolution: "SAME", "VALID" or "CIRCULAR". The state's is "SAME", or
        "CIRCULAR" too.
      dilation: of the input's convolution, like ``strides``.
    """

    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = 1
    padding: str = "SAME"
    dilation: int | Sequence[int] = 1
    recurrent_kernel_init: Initializer = default_kernel_init

    own_options: ClassVar = (
        Option("kernel_size", "tuple of ints >= 1", "extent of the kernels.", _sizes),
        Option("strides", "int >= 1, or a tuple", "of the input's convolution.", _sizes_or_one),
        Option(
            "padding",
            "SAME, VALID or CIRCULAR",
            "of the input's convolution.",
            takes.one_of("SAME", "VALID", "CIRCULAR"),
        ),
        Option("dilation", "int >= 1, or a tuple", "of the input's convolution.", _sizes_or_one),
    )

    def __post_init__(self) -> None:
        """Checks the options, and gives every axis of space its own number."""
        super().__post_init__()
        axes = len(self.kernel_size)
        for name in ("strides", "dilation"):
            given = getattr(self, name)
            value = (given,) * axes if isinstance(given, int) else tuple(given)
            if len(value) != axes:
                raise ValueError(
                    f"{name}: expected one number, or {axes} as kernel_size has, got {given!r}."
                )
            object.__setattr__(self, name, value)


class ScanConvLSTM(ConvLayer):
    r"""Convolutional LSTM: the products are convolutions over images or volumes.

    .. math::

        i, g, f, o = W_{ih} * x + b_{ih} + W_{hh} * h + b_{hh} \\
        c' = \sigma(f + 1) \odot c + \sigma(i) \odot \tanh(g) \\
        h' = \sigma(o) \odot \tanh(c')

    Same parameters as ``nn.scan`` over ``nn.ConvLSTMCell``: ``ih`` and ``hh`` hold all four gates
    side by side. xs is (T, *batch, *space, C); the carry is (c, h), arrays (*batch, *space, H).
    Options: see ``ConvLayer`` and ``GatedLayer``.

    When to choose it:
      For sequences of images, volumes or other fields in which neighbours belong together, such as
      the radar maps of rain for which Shi et al. 2015 made it. The state is an image too, and
      kernels see a window of it, so they do not depend on its extent.

    Attributes:
      forget_bias: added to what the forget gate is made of, at every step.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_conv_lstm", features=4, kernel_size=(3, 3))
      >>> xs = jnp.ones((7, 2, 8, 8, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> (c, h), ys = layer.apply(variables, None, xs)
      >>> variables["params"]["ih"]["kernel"].shape, ys.shape
      ((3, 3, 3, 16), (7, 2, 8, 8, 4))

    References:
      Shi et al., Convolutional LSTM Network, 2015 (https://arxiv.org/abs/1506.04214), without its
      peepholes.
    """

    forget_bias: float = 1.0

    cell_class: ClassVar = ConvLSTM


class ScanConvGRU(ConvLayer):
    r"""Convolutional GRU, reset before the product.

    .. math::

        r = \sigma(W_{ir} * x + b_{ir} + W_{hr} * h), \quad
        z = \sigma(W_{iz} * x + b_{iz} + W_{hz} * h) \\
        n = \tanh(W_{in} * x + b_{in} + W_{hn} * (r \odot h)) \\
        h' = (1 - z) \odot h + z \odot n

    xs is (T, *batch, *space, C); the carry is one array (*batch, *space, H). Options: see
    ``ConvLayer`` and ``GatedLayer``.

    When to choose it:
      Where a convolutional LSTM would do and memory is scarce: it has one array of state in the
      place of two, and kernels for three gates in the place of four. Ballas et al. 2016 put it
      between the layers of a convolutional network that reads videos.

    Example:
      >>> import jax, jax.numpy as jnp, registry
      >>> layer = registry.build("scan_conv_gru", features=4, kernel_size=(5,), padding="CIRCULAR")
      >>> xs = jnp.ones((7, 2, 8, 3))
      >>> variables = layer.init(jax.random.key(0), None, xs)
      >>> carry, ys = layer.apply(variables, None, xs)
      >>> carry.shape, ys.shape
      ((2, 8, 4), (7, 2, 8, 4))

    References:
      Ballas et al., Delving Deeper into Convolutional Networks for Learning Video Representations,
      2016 (https://arxiv.org/abs/1511.06432).
    """

    cell_class: ClassVar = ConvGRU
