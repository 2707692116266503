"""The base class of layers whose state is a linear recurrence."""

from typing import Any, ClassVar

import flax.linen as nn
import jax

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call import options, sequence
from zoo.recurrent.call.conditions import Conditions
from zoo.recurrent.call.options import Option
from zoo.recurrent.contract import Carry, only_declares
from zoo.recurrent.engine import LINEAR_IMPLEMENTATIONS
from zoo.recurrent.engine.kernels import linear_obstacle
from zoo.recurrent.layers.asked import asked
from zoo.recurrent.layers.leaf import LeafLayer


class LinearLayer(LeafLayer):
    """Base class of the layers whose carry changes by ``a * carry + b``; see ``LinearCell``.

    Options: those of ``LeafLayer``, where ``implementation`` may be "parallel" or "kernel" too. The
    recurrence is computed in float32 at least, whatever ``dtype`` and ``carry_dtype`` are. There is
    no dropout of the previous state, which no kernel multiplies.

    Attributes:
      implementation: "scan" is ``nn.scan`` of one step; "fused" leaves one multiplication and
        addition in the time loop; "parallel" runs those as a tree over time
        (``jax.lax.associative_scan``); "kernel" runs them as GPU kernels, where
        ``kernel_obstacle`` returns None, and as "auto" elsewhere; "auto" is "fused" on CPU, where
        it was measured to be faster, "kernel" where there is one GPU, and "parallel" elsewhere.
      sequence_axis: the mesh axis that time is shared out over where the layer is called inside of
        ``jax.shard_map``; None where time is whole there. On an explicit mesh the type of xs says
        it. Outside of ``jax.shard_map`` it says nothing. Lengths count the steps of all devices.
    """

    sequence_axis: str | None = None

    own_options: ClassVar = (
        options.implementation(*LINEAR_IMPLEMENTATIONS),
        Option(
            "sequence_axis",
            "name of a mesh axis, or None",
            "what shares time out in jax.shard_map.",
            takes.text_or_none,
        ),
    )

    def _sequence_axes(
        self, carry: Carry | None, xs: jax.Array, axis: int, given: Conditions, history: bool
    ) -> tuple[str, ...]:
        """The axes of a ``jax.shard_map`` that time is shared out over."""
        if only_declares():
            return ()
        same = ("carry", carry), ("seq_lengths", given.seq_lengths)
        axes = sequence.manual_axes(self.sequence_axis, xs, *same)
        sequence.can_run(xs, axis, axes, self.implementation, history=history)
        return axes

    @nn.nowrap
    def kernel_obstacle(self, xs: Any) -> str | None:
        """Says why ``implementation="kernel"`` is run as "auto", if it is.

        The kernel is run on an NVIDIA GPU of compute capability 9.0 (H100, H200), with the versions
        of JAX that it is known to work with, where the recurrence is computed in float32, of two
        steps or more, on one device. No option of the layer and nothing that a call is given is an
        obstacle, nor are derivatives in any mode.

        Args:
          xs: inputs as a call gets them, or their shape and dtype.

        Returns:
          The first obstacle in words, or None where the kernel is run.

        Example:
          >>> import jax.numpy as jnp, registry
          >>> layer = registry.build("scan_min_gru", features=64, implementation="kernel")
          >>> layer.kernel_obstacle(jnp.ones((1, 2, 3))) is None
          False
        """
        program, start, xs = asked(self, xs)
        return linear_obstacle(program.step, start, xs)
