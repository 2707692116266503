"""Linear recurrences against independent implementations: values, and gradients by all they read.

s5-pytorch and recurrentgemma require versions of others that may not fit: install them, and
mingru-pytorch and lru-pytorch, by ``pip install --no-deps``, with einops, jaxtyping and
``typeguard<3`` beside recurrentgemma. memorax needs what it requires.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import registry
from benchmarks.peers import memorax

from . import foreign

pytestmark = pytest.mark.interop

T, B, D, H, N = 6, 3, 4, 4, 5


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def torch() -> Iterator[Any]:
    """Torch, whose new tensors are of float64."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.fixture
def library(torch: Any) -> Callable[[str], Any]:
    return lambda name: pytest.importorskip(name, exc_type=ImportError)


def build(name: str, implementation: str, **options: Any) -> Any:
    dtypes = {"param_dtype": jnp.float64, "carry_dtype": jnp.float64}
    return registry.build(name, features=H, implementation=implementation, **dtypes, **options)


IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["scan", "fused", "parallel"])


# Both of theirs have the positive candidate and no biases. Their minLSTM takes a given state for
# something else in a sequence than in a step, so it is compared from the state at rest.
@IMPLEMENTATIONS
@pytest.mark.parametrize("rest", [False, True], ids=["given carry", "at rest"])
def test_min_gru(torch: Any, library: Any, implementation: str, rest: bool) -> None:
    theirs = library("minGRU_pytorch.minGRU").minGRU(D)

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        weight = torch.cat([params[name]["kernel"].T for name in ("in", "iz")])
        weights = {"to_hidden_and_gate.weight": weight}
        state = None if start is None else start[:, None]
        arguments = xs.transpose(0, 1), state, True
        ys, last = torch.func.functional_call(theirs, weights, arguments)
        return last[:, 0], ys.transpose(0, 1)

    layer = build("scan_min_gru", implementation, candidate="positive", use_bias=False)
    numbers = foreign.numbers(layer, (T, B, D), rest=rest)
    if not rest:
        # Its states are kept as logarithms.
        numbers = numbers._replace(start=np.abs(numbers.start))
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


@IMPLEMENTATIONS
def test_min_lstm(torch: Any, library: Any, implementation: str) -> None:
    theirs = library("minGRU_pytorch.minLSTM").minLSTM(D)

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        weight = torch.cat([params[name]["kernel"].T for name in ("ig", "if", "ii")])
        weights = {"to_hidden_and_f_i_gate.weight": weight}
        arguments = xs.transpose(0, 1), None, True
        ys, last = torch.func.functional_call(theirs, weights, arguments)
        return last[:, 0], ys.transpose(0, 1)

    layer = build("scan_min_lstm", implementation, candidate="positive", use_bias=False)
    numbers = foreign.numbers(layer, (T, B, D), rest=True)
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


# Its D is a kernel at any width, so inputs are one narrower here; it takes one sequence at a time,
# keeps its state to itself, and writes its outputs where no gradient of float64 would find them.
@IMPLEMENTATIONS
def test_lru(torch: Any, library: Any, implementation: str) -> None:
    theirs = library("LRU_pytorch").LRU(D - 1, H, N)

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        re, im = (
            torch.complex(params[f"{k}_re"]["kernel"], params[f"{k}_im"]["kernel"]) for k in "BC"
        )
        weights = {name: params[name] for name in ("nu_log", "theta_log", "gamma_log")}
        weights |= {"B": re.T, "C": im.T, "D": params["D"]["kernel"].T}
        return torch.func.functional_call(theirs, weights, (xs.transpose(0, 1),)).transpose(0, 1)

    layer = build("scan_lru", implementation, state_features=N)
    numbers = foreign.numbers(layer, (T, B, D - 1), rest=True)
    numbers = numbers._replace(weights=numbers.weights[-1:])

    def ys_alone(params: Any, start: Any, xs: Any, given: Any) -> Any:
        return layer.apply({"params": params}, start, xs, **given)[1]

    got = foreign.by_jax(ys_alone, numbers)
    foreign.assert_agree(got, foreign.by_torch(apply, numbers))


# Its numbers of a conjugate pair are not read as 2 Re(C s) but as Re(C s), so C is twice ours; its
# state starts from what is given, and the time of a step scales the length of one.
@IMPLEMENTATIONS
@pytest.mark.parametrize("timed", [True, False], ids=["intervals", "one"])
def test_s5(torch: Any, library: Any, implementation: str, timed: bool) -> None:
    theirs = library("s5.s5_model")

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        eigenvalues = torch.complex(params["Lambda_re"], params["Lambda_im"])
        b, c = (
            torch.complex(params[f"{k}_re"]["kernel"], params[f"{k}_im"]["kernel"]).T for k in "BC"
        )
        state, finals, outputs = torch.complex(*start), [], []
        for row in range(B):
            step = torch.exp(params["log_step"])
            if timed:
                step = given["intervals"][:, row, None] * step
            factors, held = theirs.discretize_zoh(eigenvalues, b, step)
            ys, last = theirs.apply_ssm(factors, held, 2 * c, params["D"], xs[:, row], state[row])
            finals.append(last)
            outputs.append(ys)
        last = torch.stack(finals)
        return (last.real, last.imag), torch.stack(outputs, 1)

    layer = build("scan_s5", implementation, state_features=N)
    spans = {"intervals": np.random.default_rng(1).uniform(0.1, 3, (T, B))} if timed else {}
    numbers = foreign.numbers(layer, (T, B, D), **spans)
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers), 1e-9)


# Theirs leaves the factor sqrt(1 - a²) out where a sequence begins, which its positions say: from
# 1 on, none does. It keeps its state in float32 unless told otherwise, by no option.
@IMPLEMENTATIONS
@pytest.mark.parametrize("heads", [1, 2])
def test_rg_lru(
    torch: Any, library: Any, implementation: str, heads: int, monkeypatch: Any
) -> None:
    theirs = library("recurrentgemma.torch.layers")
    scan = theirs.rnn_scan
    monkeypatch.setattr(theirs, "rnn_scan", lambda **given: scan(**given, acc_dtype=torch.float64))
    module = theirs.RGLRU(H, heads, dtype=torch.float64)

    def apply(params: Any, start: Any, xs: Any, given: Any) -> Any:
        weights = {"a_param": params["Lambda"]}
        for name, ours in (("a_gate", "ia"), ("input_gate", "ix")):
            kernel, bias = params[ours]["kernel"], params[ours]["bias"]
            weights[f"{name}.w"] = kernel.reshape(heads, H // heads, H // heads)
            weights[f"{name}.b"] = bias.reshape(heads, H // heads)
        positions = torch.arange(1, T + 1).expand(B, T)
        arguments = xs.transpose(0, 1), positions, start
        ys, last = torch.func.functional_call(module, weights, arguments)
        return last, ys.transpose(0, 1)

    layer = build("scan_rg_lru", implementation, heads=heads)
    numbers = foreign.numbers(layer, (T, B, D))
    foreign.assert_agree(foreign.by_layer(layer, numbers), foreign.by_torch(apply, numbers))


# A JAX library, which computes in float32 whatever comes in.
@pytest.mark.parametrize("name", ["scan_min_gru", "scan_lru", "scan_s5"])
def test_memorax(name: str) -> None:
    theirs = pytest.importorskip("memorax.networks.sequence_models", exc_type=ImportError)
    options: dict[str, Any] = {"candidate": "positive", "use_bias": False}
    if name != "scan_min_gru":
        options = {"state_features": N}
    with jax.enable_x64(False):
        layer = registry.build(name, features=H, **options)
        numbers = foreign.numbers(layer, (T, B, D), rest=True)
        params, xs = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float32), (numbers.params, numbers.xs)
        )
        cell, given = {
            "scan_min_gru": lambda: (
                theirs.MinGRUCell(H),
                lambda p: {"z": p["iz"], "h": p["in"]},
            ),
            "scan_lru": lambda: (theirs.LRUCell(H, N), memorax.lru_parameters),
            "scan_s5": lambda: (theirs.S5Cell(H, N), memorax.s5_parameters),
        }[name]()
        memoroid = theirs.Memoroid(cell)

        def ours(params: Any, xs: Any) -> Any:
            return layer.apply({"params": params}, None, xs)[1]

        def wanted(params: Any, xs: Any) -> Any:
            variables = {"params": {"cell": given(params)}}
            xs, mask = xs.swapaxes(0, 1), jnp.zeros((B, T))
            return memoroid.apply(variables, xs, mask)[1].swapaxes(0, 1)

        def both(function: Any) -> Any:
            loss = lambda *at: (jnp.sum(jnp.sin(ys := function(*at))), ys)  # noqa: E731
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)

        for got, expected in zip(*map(jax.tree.leaves, map(both, (ours, wanted))), strict=True):
            # Its hold of an S5 cancels, in float32, where steps are short.
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
