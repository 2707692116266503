"""PyTorch."""

import dataclasses
from typing import Any

import numpy as np

from .shapes import FEATURES, INPUTS, Shape, randomise


class Torch:
    """torch.nn modules."""

    cells = ("gru", "lstm", "lstm_proj", "rnn_tanh", "rnn_relu")
    biases, float64 = (True, False), True

    def build(self, shape: Shape) -> Any:
        import torch

        kinds = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM, "rnn": torch.nn.RNN}
        options = {"proj_size": 3} if shape.cell == "lstm_proj" else {}
        if shape.cell.startswith("rnn"):
            options["nonlinearity"] = shape.cell[4:]
        module = kinds[shape.cell.split("_")[0]](
            INPUTS,
            FEATURES,
            num_layers=shape.layers,
            bias=shape.bias,
            batch_first=True,
            bidirectional=shape.directions == 2,
            dtype=getattr(torch, shape.dtype),
            **options,
        )
        rng = shape.rng()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.from_numpy(randomise(rng, parameter)))
        return module

    def plain(self, module: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        options = {"batch_first": True}
        if module.mode.startswith("RNN"):
            options["nonlinearity"] = module.mode[4:].lower()
        return ({k: v.numpy() for k, v in module.state_dict().items()},), options

    def run(self, module: Any, shape: Shape, x: Any, lengths: Any, start: Any) -> Any:
        import torch
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        fields = [
            np.stack([s[i] for layer in start for s in layer]) for i in range(1 + shape.has_c)
        ]
        state = tuple(map(torch.from_numpy, fields))
        inputs = torch.from_numpy(x)
        with torch.no_grad():
            if lengths is not None:
                inputs = pack_padded_sequence(
                    inputs, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
                )
            ys, end = module(inputs, state if shape.has_c else state[0])
            if lengths is not None:
                ys, _ = pad_packed_sequence(ys, batch_first=True)
        flat = list(zip(*(end if shape.has_c else (end,)), strict=True))
        ends = [
            [
                [a.numpy() for a in flat[layer * shape.directions + side]]
                for side in range(shape.directions)
            ]
            for layer in range(shape.layers)
        ]
        return ys.numpy(), ends

    def convert(self, convert: Any, module: Any) -> Any:
        return convert.from_torch(module)

    def load(self, convert: Any, shape: Shape, config: Any, variables: Any) -> Any:
        module = self.build(dataclasses.replace(shape, seed=99))
        module.load_state_dict(convert.to_torch(config, variables), strict=True)
        return module

    def state(self, shape: Shape, start: Any) -> Any:
        import torch

        fields = [
            np.stack([s[i] for layer in start for s in layer]) for i in range(1 + shape.has_c)
        ]
        return tuple(map(torch.from_numpy, fields)) if shape.has_c else torch.from_numpy(fields[0])
