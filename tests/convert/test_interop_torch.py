"""PyTorch beyond the grid: cells, submodules, safetensors files, half precision, dropout."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from . import reference
from .comparison import assert_close, assert_same

pytestmark = pytest.mark.interop

X = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32)


@pytest.fixture
def torch() -> Any:
    # Imported here, because other tests should not wait for it.
    return pytest.importorskip("torch")


def larger(torch: Any) -> Any:
    rnns = {"rnn": torch.nn.GRU(3, 4, 2), "other": torch.nn.RNN(3, 2)}
    parts = {"encoder": torch.nn.ModuleDict(rnns), "head": torch.nn.Linear(4, 1)}
    return torch.nn.ModuleDict(parts)


def outputs(torch: Any, module: Any) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(X))[0].numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [("GRUCell", {}), ("LSTMCell", {}), ("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"})],
)
def test_cells(torch: Any, name: str, options: dict[str, Any], bias: bool) -> None:
    def make() -> Any:
        return getattr(torch.nn, name)(3, 4, bias=bias, **options)

    cell = make()
    config, variables = convert.from_torch(cell)
    state, expected = None, []
    with torch.no_grad():
        for x in torch.from_numpy(X):
            state = cell(x, state)
            expected.append((state[0] if isinstance(state, tuple) else state).numpy())
    assert_close(reference.run(config, variables, X)[1], np.stack(expected))
    other = make()
    other.load_state_dict(convert.to_torch(config, variables, cell=True), strict=True)
    assert_same(convert.from_torch(other)[1], variables)


@pytest.mark.parametrize("prefix", ["encoder.rnn", "encoder.rnn."])
def test_part_of_a_larger_model(torch: Any, prefix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = larger(torch)
    expected = outputs(torch, model["encoder"]["rnn"])
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    for source in (model, model.state_dict(), path, str(path)):
        config, variables = convert.from_torch(source, prefix=prefix)
        assert config["num_layers"] == 2
        assert_close(reference.run(config, variables, X)[1], expected)
    with torch.no_grad():
        for parameter in model["encoder"]["rnn"].parameters():
            parameter.zero_()
    model.load_state_dict(convert.to_torch(config, variables, prefix=prefix), strict=False)
    assert_close(outputs(torch, model["encoder"]["rnn"]), expected)


def test_larger_model_without_prefix_says_where_to_look(torch: Any) -> None:
    for source in (larger(torch), torch.nn.Linear(2, 2)):
        with pytest.raises(
            ConversionError, match=r"expected a torch\.nn GRU, LSTM or RNN"
        ) as caught:
            convert.from_torch(source)
    with pytest.raises(ConversionError, match=r"'encoder.rnn', 'encoder.other'"):
        convert.from_torch(larger(torch))
    with pytest.raises(ConversionError, match="found nothing"):
        convert.from_torch(larger(torch), prefix="decoder")
    assert "It holds none" in str(caught.value)


def test_safetensors_of_half_precision(torch: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    module = torch.nn.LSTM(3, 4, proj_size=2, dtype=torch.bfloat16)
    config, variables = convert.from_torch(module)
    assert config["param_dtype"] == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.bfloat16)}

    path = tmp_path / "lstm.safetensors"
    arrays = {k: v.float().numpy() for k, v in convert.to_torch(config, variables).items()}
    save_file({k: v.astype(jnp.bfloat16) for k, v in arrays.items()}, path)
    assert_same(convert.from_torch(path)[1], variables)
    assert load_file(path)["weight_hr_l0"].shape == (2, 4)

    module.load_state_dict(convert.to_torch(config, variables), strict=True)
    assert_same(convert.from_torch(module)[1], variables)


def test_state_dict_is_arrays_until_torch_is_imported(tmp_path: Path) -> None:
    for package in ("torch", "safetensors"):
        pytest.importorskip(package)
    program = f"""
import sys
import numpy as np
from safetensors.numpy import save_file
from zoo.recurrent import convert

state = {{"weight_ih_l0": np.ones((8, 3), "float32"), "weight_hh_l0": np.ones((8, 2), "float32")}}
config, variables = convert.from_torch(state)
path = {str(tmp_path / "x.safetensors")!r}
save_file(convert.to_torch(config, variables), path)
carry = convert.carry_to_torch(config, (np.ones(2), np.ones(2)))
assert "torch" not in sys.modules and isinstance(carry[0], np.ndarray)
import torch
module = torch.nn.LSTM(3, 2, bias=False)
module.load_state_dict(convert.to_torch(*convert.from_torch(path)), strict=True)
assert isinstance(convert.carry_to_torch(config, (np.ones(2), np.ones(2)))[0], torch.Tensor)
print(float(module.weight_ih_l0.sum()))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout == "24.0\n", done.stderr


def test_dropout_between_layers(torch: Any) -> None:
    config, _ = convert.from_torch(torch.nn.GRU(3, 4, 2, dropout=0.25))
    assert config["dropout_rate"] == 0.25
    assert "dropout_rate" not in convert.from_torch(torch.nn.GRU(3, 4, 2))[0]


def test_options_that_contradict_the_module(torch: Any) -> None:
    module = torch.nn.RNN(3, 4, nonlinearity="relu")
    assert convert.from_torch(module, nonlinearity="relu", batch_first=False)[0] == {
        "name": "scan_elman",
        "features": 4,
        "activation_fn": "relu",
    }
    with pytest.raises(ConversionError, match="batch_first=True was given; the module has False"):
        convert.from_torch(module, batch_first=True)
    with pytest.raises(ValueError, match="'tanh' or 'relu'"):
        convert.from_torch(module.state_dict(), nonlinearity="sigmoid")


def test_converted_weights_do_not_follow_training(torch: Any) -> None:
    module = torch.nn.RNN(3, 4)
    config, variables = convert.from_torch(module)
    before = jax.tree.map(np.array, variables)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert_same(jax.tree.map(np.asarray, variables), before)
    state = convert.to_torch(config, variables)
    state["weight_ih_l0"].add_(1)
    assert_same(jax.tree.map(np.asarray, variables), before)


def test_state_of_a_single_sequence(torch: Any) -> None:
    module = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    with torch.no_grad():
        _, state = module(torch.from_numpy(X[:, 0]))
    config, _ = convert.from_torch(module)
    carry = convert.carry_from_torch(config, state)
    assert jax.tree.leaves(carry)[0].shape == (4,)
    back = convert.carry_to_torch(config, carry)
    assert all(torch.equal(a, b) for a, b in zip(state, back, strict=True))
