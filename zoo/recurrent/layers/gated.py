"""The base class of gated layers: activations, and kernels of the previous hidden state."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax.linen import initializers
from flax.typing import Initializer

from zoo.recurrent.call import option_checks
from zoo.recurrent.cell import Cell, Kernel
from zoo.recurrent.engine.kernels import obstacle
from zoo.recurrent.layers.asked import asked
from zoo.recurrent.layers.leaf import LeafLayer

Activation = Callable[[jax.Array], jax.Array]


class GatedLayer(LeafLayer):
    """Base class of the layers whose steps multiply the previous hidden state by kernels.

    Options: those of ``LeafLayer``, and the following.

    Attributes:
      gate_fn: activation of the gates, or its name in ``jax.nn`` ("sigmoid", "hard_sigmoid").
      activation_fn: activation of the candidate state, or its name ("tanh", "relu").
      recurrent_kernel_init: initialiser of the recurrent kernels.
      recurrent_dropout_rate: of the hidden state where it is multiplied, one mask per sequence
        (Gal & Ghahramani 2016).
      heads: N, for recurrent kernels that are block-diagonal: of shape (N, H/N, H/N), each block
        initialised by itself, so that one head sees only its own H/N features of h. H has to be a
        multiple of N.
    """

    gate_fn: Activation | str = nn.sigmoid
    activation_fn: Activation | str = nn.tanh
    recurrent_kernel_init: Initializer = initializers.orthogonal()
    recurrent_dropout_rate: float = 0.0
    heads: int = 1

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        for name in ("gate_fn", "activation_fn"):
            option_checks.keeps_shape(name, getattr(self, name), self.features)
        if self.heads != 1:
            self._check_heads()

    @nn.nowrap
    def _check_heads(self) -> None:
        cell = self.cell_class(**self._cell_options)
        if not cell.hidden or any(k.diagonal or k.window for k in cell.kernels.values()):
            raise ValueError(
                f"heads: expected 1, got {self.heads}: {type(self).__name__} has no recurrent "
                "kernel that could be cut into blocks. Cure: leave heads out."
            )
        for name in cell.hidden:
            kernel = cell.kernels[name]
            for size in (kernel.rows or cell.widths[-1], kernel.width):
                if size % self.heads:
                    raise ValueError(
                        f"heads: expected a number that divides {size}, the size of {name}/kernel, "
                        f"got {self.heads}. Cure: make features (and projection) a multiple of it."
                    )

    @property
    def cell(self) -> Cell:
        """The equations, with this layer's options."""
        given: dict[str, Any] = self._cell_options
        for name in ("gate_fn", "activation_fn"):
            given[name] = option_checks.activation_of(name, given[name])
        return self.cell_class(**given)

    @property
    def _recurrent_dropout_rate(self) -> float:
        return self.recurrent_dropout_rate

    @nn.nowrap
    def kernel_obstacle(
        self, xs: Any, *, deterministic: bool = True, history: bool = False
    ) -> str | None:
        """Says why ``implementation="kernel"`` is run as "fused", if it is.

        The kernel is run on an NVIDIA GPU of compute capability 9.0 (H100, H200), with the versions
        of JAX that it is known to work with, for a GRU or an LSTM with sigmoid and tanh, without
        peepholes, projection and coupled gates; of 64, 128, 192 or 256 features per head in
        bfloat16, or 64 or 128 in float32, which it multiplies as TF32; with a float32 carry, the
        default precision, two steps or more, on one device, without ``checkpoint_every``,
        ``truncate_every``, zoneout and recurrent dropout, and where only ys and the last carry are
        asked for. Lengths, masks, resets, ``reverse``, learned carries and any batch are no
        obstacles, nor are derivatives in any mode: tangents and second derivatives are the fused
        engine's.

        Args:
          xs: inputs as a call gets them, or their shape and dtype.
          deterministic: as in the call.
          history: whether ``history`` or ``carries`` is called.

        Returns:
          The first obstacle in words, or None where the kernel is run.

        Example:
          >>> import jax, jax.numpy as jnp, registry
          >>> layer = registry.build("scan_gru", features=64, implementation="kernel")
          >>> xs = jnp.ones((7, 2, 3))
          >>> layer.kernel_obstacle(xs, history=True) is None
          False
        """
        program, start, xs = asked(self, xs, history)
        signals = set() if self.truncate_every is None else {"cut"}
        if self.recurrent_dropout_rate and not deterministic:
            signals.add("recurrent_dropout")
        return obstacle(program.engine, program.step, start, xs, dict.fromkeys(signals), {})

    @nn.nowrap
    def _kernel_init(self, name: str, kernel: Kernel, inputs: int) -> Initializer:
        """The initialiser of an input kernel, or of a recurrent one; ``inputs`` is D."""
        return self.kernel_init if kernel.source == "input" else self.recurrent_kernel_init
