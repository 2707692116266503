"""Weights and carries of other libraries, to and from the layers of this project.

    config, variables = from_torch(module)
    layer = registry.build(config)
    carry, ys = layer.apply(variables, None, xs)

There is `from_X`, `to_X`, `carry_from_X` and `carry_to_X` for torch, keras, haiku, equinox, nnx and
linen, and for onnx all but `to_onnx`. Conversions are exact or fail with a `ConversionError`;
nothing is loaded partly, no pickle is opened, and no library is imported that is not in use.
"""

from zoo.recurrent.convert.dm_haiku import carry_from_haiku as carry_from_haiku
from zoo.recurrent.convert.dm_haiku import carry_to_haiku as carry_to_haiku
from zoo.recurrent.convert.dm_haiku import from_haiku as from_haiku
from zoo.recurrent.convert.dm_haiku import to_haiku as to_haiku
from zoo.recurrent.convert.equinox_cells import carry_from_equinox as carry_from_equinox
from zoo.recurrent.convert.equinox_cells import carry_to_equinox as carry_to_equinox
from zoo.recurrent.convert.equinox_cells import from_equinox as from_equinox
from zoo.recurrent.convert.equinox_cells import to_equinox as to_equinox
from zoo.recurrent.convert.errors import ConversionError as ConversionError
from zoo.recurrent.convert.flax_linen import carry_from_linen as carry_from_linen
from zoo.recurrent.convert.flax_linen import carry_to_linen as carry_to_linen
from zoo.recurrent.convert.flax_linen import from_linen as from_linen
from zoo.recurrent.convert.flax_linen import to_linen as to_linen
from zoo.recurrent.convert.flax_nnx import carry_from_nnx as carry_from_nnx
from zoo.recurrent.convert.flax_nnx import carry_to_nnx as carry_to_nnx
from zoo.recurrent.convert.flax_nnx import from_nnx as from_nnx
from zoo.recurrent.convert.flax_nnx import to_nnx as to_nnx
from zoo.recurrent.convert.keras3 import carry_from_keras as carry_from_keras
from zoo.recurrent.convert.keras3 import carry_to_keras as carry_to_keras
from zoo.recurrent.convert.keras3 import from_keras as from_keras
from zoo.recurrent.convert.keras3 import to_keras as to_keras
from zoo.recurrent.convert.onnx_nodes import carry_from_onnx as carry_from_onnx
from zoo.recurrent.convert.onnx_nodes import carry_to_onnx as carry_to_onnx
from zoo.recurrent.convert.onnx_nodes import from_onnx as from_onnx
from zoo.recurrent.convert.onnx_nodes import initial_carry_from_onnx as initial_carry_from_onnx
from zoo.recurrent.convert.pytorch import carry_from_torch as carry_from_torch
from zoo.recurrent.convert.pytorch import carry_to_torch as carry_to_torch
from zoo.recurrent.convert.pytorch import from_torch as from_torch
from zoo.recurrent.convert.pytorch import to_torch as to_torch
