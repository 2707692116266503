"""Every layer of the zoo as a module of Flax NNX.

    layer = build("scan_gru", 12, rngs=nnx.Rngs(0), features=64)
    carry, ys = layer(None, xs)

The module calls the Linen layer with its own parameters: there is one implementation, and one
contract (``zoo.recurrent.RecurrentLayer``).
"""

from zoo.recurrent.nnx.building import build as build
from zoo.recurrent.nnx.building import from_linen as from_linen
from zoo.recurrent.nnx.building import from_nnx as from_nnx
from zoo.recurrent.nnx.building import to_linen as to_linen
from zoo.recurrent.nnx.module import Recurrent as Recurrent
