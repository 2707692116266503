"""What else people have of torch: parametrised and compiled modules, checkpoints, mixed halves."""

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrent import convert
from zoo.recurrent.convert import ConversionError

from . import reference
from .comparison import assert_close
from .plain_weights import F32, torch_gru, without, zeros

X = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32)

PLAIN = {
    "checkpoint": (
        {"epoch": 3, "model": torch_gru(), "losses": [[1.0], [1.0, 2.0]]},
        ["whole checkpoint", "Give checkpoint['model'] alone"],
    ),
    "checkpoint with a key that is no text": (
        {0: 3, "state_dict": torch_gru(prefix="module.")},
        ["Give checkpoint['state_dict'] alone"],
    ),
    "optimiser": ({"state": {0: {"step": 1}}, "param_groups": []}, ["None has recurrent weights"]),
    "keys that are no text": ({**torch_gru(), 0: zeros(1)}, ["names as keys", "[0]"]),
    "rows of unequal lengths": (
        {**torch_gru(), "weight_ih_l0": [[1.0], [1.0, 2.0]]},
        ["'weight_ih_l0'", "unequal lengths"],
    ),
    "record beside the weights": (
        {**torch_gru(), "losses": [[1.0], [1.0, 2.0]]},
        ["'losses' (a list)", "left over"],
    ),
    "missing beside a record": (
        {**without(torch_gru(), "weight_hh_l0"), "losses": [[1.0], [1.0, 2.0]]},
        ["'weight_hh_l0' is missing"],
    ),
    "float8": (
        {key: w.astype(jnp.float8_e4m3fn) for key, w in torch_gru().items()},
        ["float8_e4m3fn", "float16, bfloat16, float32, float64", "widened"],
    ),
}


@pytest.mark.parametrize("case", PLAIN)
def test_what_is_no_state_dict_is_said(case: str) -> None:
    source, parts = PLAIN[case]
    with pytest.raises(ConversionError) as caught:
        convert.from_torch(source)
    for part in parts:
        assert part in str(caught.value)


def test_two_kinds_of_half_become_float32() -> None:
    rng = np.random.default_rng(0)
    state = {k: rng.normal(size=w.shape).astype(F32) for k, w in torch_gru(3).items()}
    kinds = (jnp.bfloat16, np.float16)
    halves = {k: w.astype(kinds["ih" in k]) for k, w in state.items()}
    config, variables = convert.from_torch(halves)
    assert config == convert.from_torch(state)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(F32)}
    assert_close(variables, convert.from_torch({k: w.astype(F32) for k, w in halves.items()})[1])


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.safetensors").touch()
    (tmp_path / "empty.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    for name, words in (("folder", "directory.*a.safetensors"), ("empty.safetensors", "without")):
        with pytest.raises(ConversionError, match=words):
            convert.from_torch(tmp_path / name)
    for name, words in (("loop", "symbolic link"), ("none", "found nothing")):
        with pytest.raises(FileNotFoundError, match=words):
            convert.from_torch(tmp_path / f"{name}.safetensors")


@pytest.fixture
def torch() -> Any:
    torch = pytest.importorskip("torch")
    # A spectral norm begins with a random estimate, and now and then divides by next to nothing.
    torch.manual_seed(0)
    return torch


def weight_norm(torch: Any, module: Any, name: str) -> None:
    torch.nn.utils.parametrizations.weight_norm(module, name)


def spectral_norm(torch: Any, module: Any, name: str) -> None:
    torch.nn.utils.parametrizations.spectral_norm(module, name)


def own(torch: Any, module: Any, name: str) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, weight: Any) -> Any:
            return 2 * weight

    for _ in range(2):
        torch.nn.utils.parametrize.register_parametrization(module, name, Doubled())


def older_weight_norm(torch: Any, module: Any, name: str) -> None:
    torch.nn.utils.weight_norm(module, name)


def older_spectral_norm(torch: Any, module: Any, name: str) -> None:
    torch.nn.utils.spectral_norm(module, name)


def pruned(torch: Any, module: Any, name: str) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(module, name, amount=0.5)


def pruned_twice(torch: Any, module: Any, name: str) -> None:
    from torch.nn.utils import prune

    for _ in range(2):
        prune.l1_unstructured(module, name, amount=0.3)


@pytest.mark.interop
@pytest.mark.parametrize(
    "change",
    [weight_norm, spectral_norm, own, older_weight_norm, older_spectral_norm, pruned, pruned_twice],
)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_weights_that_are_computed(torch: Any, change: Any, kind: str) -> None:
    module = getattr(torch.nn, kind)(3, 4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("weight_hh_l0", "weight_ih_l1"):
            change(torch, module, name)
    # Moved after the weights were last computed, as an optimiser's step does it.
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    config, variables = convert.from_torch(module)
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(X))[0].numpy()
    assert_close(reference.run(config, variables, X)[1], expected)


@pytest.mark.interop
def test_computed_weights_of_a_cell(torch: Any) -> None:
    cell = torch.nn.GRUCell(3, 4)
    weight_norm(torch, cell, "weight_hh")
    config, variables = convert.from_torch(cell)
    with torch.no_grad():
        expected = cell(torch.from_numpy(X[0])).numpy()
    assert_close(reference.run(config, variables, X[:1])[1][0], expected)


@pytest.mark.interop
def test_compiled_modules(torch: Any) -> None:
    gru = torch.nn.GRU(3, 4, batch_first=True)
    plain = convert.from_torch(gru)
    inner = torch.nn.ModuleDict({"rnn": torch.compile(gru, backend="eager")})
    for module, prefix in (
        (torch.compile(gru, backend="eager"), ""),
        (inner, "rnn"),
        (torch.compile(inner, backend="eager"), "rnn"),
    ):
        config, variables = convert.from_torch(module, prefix=prefix)
        assert config == plain[0]
        assert_close(variables, plain[1])


def subclass(torch: Any) -> Any:
    class Residual(torch.nn.GRU):
        def forward(self, x: Any, h: Any = None) -> Any:
            ys, h = super().forward(x, h)
            return x + ys, h

    return Residual(3, 3)


def patched(torch: Any) -> Any:
    module = torch.nn.GRU(3, 3)
    module.forward = lambda x: x
    return module


def scripted(torch: Any) -> Any:
    return torch.jit.script(torch.nn.GRU(3, 4))


def quantised(torch: Any) -> Any:
    module = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 4)})
    return torch.ao.quantization.quantize_dynamic(module, {torch.nn.LSTM})["rnn"]


def quantisable(torch: Any) -> Any:
    return torch.ao.nn.quantizable.LSTM(3, 4)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (subclass, "Residual, a GRU with a `forward` of its own.*module.state_dict"),
        (patched, "GRU, a GRU with a `forward` of its own"),
        (scripted, "GRU, a TorchScript module.*module.state_dict"),
        (quantised, "before quantisation"),
        (quantisable, "before quantisation"),
    ],
)
def test_modules_that_may_compute_something_else(torch: Any, make: Any, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = make(torch)
    with pytest.raises(ConversionError, match=words):
        convert.from_torch(module)


@pytest.mark.interop
def test_subclass_without_a_forward_of_its_own(torch: Any) -> None:
    class Named(torch.nn.GRU):
        pass

    module = Named(3, 4)
    assert_close(convert.from_torch(module)[1], convert.from_torch(module.state_dict())[1])


@pytest.mark.interop
def test_tensors_without_numbers(torch: Any) -> None:
    state = torch.nn.GRU(3, 4).state_dict()
    for other in (
        {key: w.to(torch.float8_e4m3fn) for key, w in state.items()},
        {key: w.to("meta") for key, w in state.items()},
        {**state, "weight_hh_l0": state["weight_hh_l0"].to_sparse()},
    ):
        with pytest.raises(ConversionError, match=r"'weight_[ih]h_l0' is a torch tensor of"):
            convert.from_torch(other)
