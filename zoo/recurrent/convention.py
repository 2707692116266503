"""The broadcasting convention, stated once: how ``nn.scan`` lifts a body over an axis."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax.core import DenyList


@dataclasses.dataclass(frozen=True)
class Convention:
    """What is shared and what is split when a body is repeated along an axis.

    The two conventions of the zoo are ``TIME`` and ``DEPTH``. This is the only place that calls
    ``nn.scan``.

    Attributes:
      params_axis: None where every repetition uses the same parameters, else the axis of each
        parameter along which they are stacked.
      split_rngs: for each filter of random streams (a name, a ``DenyList`` of names, True for
        all), whether repetitions draw different numbers; the first filter that fits decides.
      stacked: collections that every repetition writes anew, stacked along a new first axis.
      carried: collections that every repetition reads and updates.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import flax.linen as nn
      >>> from zoo.recurrent import TIME
      >>> xs = jnp.ones((7, 2, 3))
      >>> scanned = TIME.lift(nn.GRUCell)(features=4)
      >>> variables = scanned.init(jax.random.key(0), jnp.zeros((2, 4)), xs)
      >>> carry, ys = scanned.apply(variables, jnp.zeros((2, 4)), xs)
      >>> ys.shape
      (7, 2, 4)
    """

    params_axis: int | None
    split_rngs: tuple[tuple[Any, bool], ...]
    stacked: tuple[str, ...] = ("intermediates",)
    carried: tuple[str, ...] = ()

    def lift(
        self,
        body: Any,
        *,
        axis: int = 0,
        length: int | None = None,
        reverse: bool = False,
        unroll: int = 1,
        in_axes: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Lifts a module class, or a function of a module, over an axis of its inputs.

        Args:
          body: an ``nn.Module`` class whose call is ``(carry, x) -> (carry, y)``, or a function
            ``(module, carry, x) -> (carry, y)``.
          axis: the axis of xs and ys that is scanned over.
          length: number of repetitions, where xs does not tell.
          reverse: whether to run from the last index to the first.
          unroll: repetitions per iteration of the loop.
          in_axes: the axis of every input, where they differ; default ``axis`` for all.
          options: anything else for ``nn.scan``.

        Returns:
          What ``nn.scan`` returns for the body.
        """
        shared = self.params_axis is None
        axes: dict[Any, Any] = {name: 0 for name in self.stacked}
        if not shared:
            axes["params"] = self.params_axis
        return nn.scan(
            body,
            variable_broadcast="params" if shared else False,
            variable_axes=axes,
            variable_carry=list(self.carried) or False,
            split_rngs=dict(self.split_rngs),
            in_axes=axis if in_axes is None else in_axes,
            out_axes=axis,
            length=length,
            reverse=reverse,
            unroll=unroll,
            # Boxed parameters (nn.with_partitioning) are not sharded over repetitions.
            metadata_params={nn.PARTITION_NAME: None},
            **dict(options or {}),
        )


TIME = Convention(
    params_axis=None,
    split_rngs=(("params", False), (DenyList("params"), True)),
)
"""Over time: one set of parameters for all steps; random streams split, ``sow`` kept per step."""

DEPTH = Convention(
    params_axis=0,
    split_rngs=((True, True),),
)
"""Over depth: a set of parameters per layer, stacked along axis 0; all random streams split."""
