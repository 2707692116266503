"""The conformance kit over the NNX form of every registered layer."""

import functools

import pytest

import registry
from tests.recurrent import test_conformance as linen
from zoo.recurrent.testing import CHECKS, Case

from .adapter import adapted

# The parents of check_parents are modules of Linen; those of an NNX module are in test_transforms.
NOT_HERE = ("check_parents",)
# What the two forms share is checked there; every day, what goes in and what comes out is, here.
WHOLE = ("scan_gru",)
PARTLY = ("scanned", "stack")
QUICK = ("check_shapes", "check_steps", "check_resets")


@functools.cache
def case(name: str) -> Case:
    known = linen.case(name)
    build, options = adapted(known.build, known.xs)
    return Case(build, known.xs, known.options or options)


def is_quick(name: str, check: str) -> bool:
    return check not in linen.DEAR if name in WHOLE else name in PARTLY and check in QUICK


TABLE = [
    pytest.param(
        name,
        check,
        marks=[] if is_quick(name, check.__name__) else [pytest.mark.slow],
        id=f"{name}-{check.__name__}",
    )
    for name, check in linen.ROWS
    if check.__name__ not in NOT_HERE
]


@pytest.mark.parametrize(("name", "check"), TABLE)
def test_module(name, check):
    check(case(name))


def test_every_registered_layer_is_in_the_table():
    assert {name for name, _ in linen.ROWS} >= set(registry.names())
    assert {check for _, check in linen.ROWS} == set(CHECKS)
