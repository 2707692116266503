"""The base class of layers whose state is a linear recurrence."""

from typing import ClassVar

from zoo.recurrent.call import options
from zoo.recurrent.engine import LINEAR_IMPLEMENTATIONS
from zoo.recurrent.layers.leaf import LeafLayer


class LinearLayer(LeafLayer):
    """Base class of the layers whose carry changes by ``a * carry + b``; see ``LinearCell``.

    Options: those of ``LeafLayer``, where ``implementation`` may be "parallel" too. The recurrence
    is computed in float32 at least, whatever ``dtype`` and ``carry_dtype`` are. There is no
    dropout of the previous state, which no kernel multiplies.

    Attributes:
      implementation: "scan" is ``nn.scan`` of one step; "fused" leaves one multiplication and
        addition in the time loop; "parallel" runs those as a tree over time
        (``jax.lax.associative_scan``); "auto" is "fused" on CPU, where it was measured to be
        faster, and "parallel" elsewhere.
    """

    own_options: ClassVar = (options.implementation(*LINEAR_IMPLEMENTATIONS),)
