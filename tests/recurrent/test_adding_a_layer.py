"""A layer that is one new file and one entry of the catalogue, and everything that finds it."""

import functools
import re
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

import registry
from benchmarks.cases import Case as BenchmarkCase
from benchmarks.cases import Size
from benchmarks.measure import Task, measure
from benchmarks.progress import Progress
from registry import store
from zoo import catalogue
from zoo.recurrent.testing import CHECKS, Case

from . import layers, test_implementations
from .layers import inputs_for

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-layer.md").read_text()

TOY = '''
"""A leaky network."""

import dataclasses
from typing import ClassVar

from zoo.recurrent.call import option_checks as takes
from zoo.recurrent.call.options import Option
from zoo.recurrent.cell import Carry, Cell, Kernel, Product, Projected, Weights
from zoo.recurrent.layers.gated import GatedLayer


@dataclasses.dataclass(frozen=True)
class Leaky(Cell):
    """The equation of ``ScanLeaky``."""

    leak: float = 0.5

    def declare(self) -> dict[str, Kernel]:
        """Kernels ``i`` and ``h``."""
        read = Kernel("input", self.features, bias=self.use_bias)
        return {"i": read, "h": Kernel("state", self.features)}

    def step(self, recur: Product, carry: Carry, u: Projected, weights: Weights) -> Carry:
        """Takes one step."""
        (h,) = carry
        (n,) = recur(h, h=u["i"])
        return (self.leak * h + (1 - self.leak) * self.activation_fn(n),)


class ScanLeaky(GatedLayer):
    r"""Leaky network.

    .. math::

        h' = a h + (1 - a) tanh(W_i x + b_i + W_h h)

    Attributes:
      leak: a.
    """

    leak: float = 0.5

    cell_class: ClassVar = Leaky
    own_options: ClassVar = (Option("leak", "number", "what is kept.", takes.finite),)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "leaky_layer.py").write_text(textwrap.dedent(TOY))
    monkeypatch.syspath_prepend(tmp_path)
    entry = catalogue._leaf("x:y", "Leaky network.", "Nobody, 2026")
    entry["factory"] = "leaky_layer:ScanLeaky"
    monkeypatch.setitem(catalogue.LAYERS, "scan_leaky", entry)
    with registry.temporary():
        # As the registry reads the catalogue when it is imported.
        store._insert(registry.Spec("scan_leaky", where="built-in catalogue", **entry), False)
        yield "scan_leaky"
    sys.modules.pop("leaky_layer", None)


def test_the_registry_knows_it(toy):
    assert toy in registry.names("scan_*")
    assert registry.build(toy, features=4, leak=0.1).leak == 0.1
    text = registry.describe(toy)
    assert "Leaky network." in text and "leak" in text
    with pytest.raises(TypeError, match="leak must be a finite number"):
        registry.build(toy, features=4, leak="much")
    with pytest.raises(registry.WrongOptionError, match="leek"):
        registry.build(toy, features=4, leek=0.1)


QUICK = ("check_steps", "check_resets", "check_implementations", "check_padding_cannot_leak")


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check,
            marks=[] if check.__name__ in QUICK else [pytest.mark.slow],
            id=check.__name__,
        )
        for check in CHECKS
    ],
)
def test_it_keeps_the_contract(check, toy):
    build = functools.partial(registry.build, toy, features=4)
    check(Case(build, inputs_for(build(), 6, 3, 5)))


def test_a_plain_loop_computes_the_same(toy, monkeypatch):
    leaf = layers._leaf(toy)
    monkeypatch.setitem(test_implementations.LEAVES, "leaky", leaf)
    test_implementations.test_float64_with_all_conditions(leaf)
    test_implementations.test_float32(leaf)


def test_it_works_inside_of_others(toy):
    xs = np.ones((5, 2, 3), np.float32)
    layer = registry.build(
        "stack", layer={"name": "bidirectional", "layer": toy}, features=4, num_layers=2, leak=0.2
    )
    _, ys = layer.apply(layer.init(jax.random.key(0), None, xs), None, xs)
    assert ys.shape == (5, 2, 8)


def test_the_benchmark_measures_it(toy):
    case = BenchmarkCase("leaky", Size(batch=2, steps=4, inputs=3, features=4))
    task = Task(case, ("ours", "linen"), ("forward",), rounds=1)
    with Progress(task.total_rounds) as progress:
        (result,) = measure(task, progress)
    assert result.missing == {}
    assert {one.name for one in result.series} == {"ours auto", "ours scan", "ours fused"}


def test_the_page_shows_a_layer_as_it_is():
    example, entry = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example == (ROOT / "zoo" / "recurrent" / "layers" / "ugrnn.py").read_text()
    assert textwrap.indent(entry, "    ") in (ROOT / "zoo" / "catalogue.py").read_text()
    assert len(example.splitlines()) + len(entry.splitlines()) < 80
