"""The real libraries behind one interface, for the interop tests and for make_golden.py.

Each class builds a foreign network with random weights, runs it, and says how the converters are
called for it. Sequences are (B, T, D); states are layers x directions of [h] or [h, c].
"""

from .cells_by_hand import Equinox, Haiku
from .flax_modules import NNX, Linen
from .keras_layers import Keras
from .onnx_models import Onnx
from .shapes import LENGTHS, Shape, sequences, states
from .torch_modules import Torch

__all__ = ["LENGTHS", "LIBRARIES", "Shape", "sequences", "states"]

LIBRARIES = {
    "torch": Torch(),
    "keras": Keras(),
    "haiku": Haiku(),
    "equinox": Equinox(),
    "linen": Linen(),
    "nnx": NNX(),
    "onnx": Onnx(),
}
