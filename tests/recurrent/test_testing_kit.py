"""The conformance kit finds broken layers: one for every promise, with words on what is wrong."""

import functools
import unittest

import pytest

from zoo.recurrent import ScanElman
from zoo.recurrent.testing import CHECKS, Case, check_layer

from .broken_layers import BROKEN, OtherStep, SaysNothing
from .layers import COMPOSITES, PASSED_ON, some

XS = some((4, 3, 2))


@pytest.mark.parametrize(
    ("name", "layer_class", "words"), [pytest.param(*row, id=row[1].__name__) for row in BROKEN]
)
def test_a_broken_layer_is_found(name, layer_class, words):
    (check,) = (check for check in CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError, match="breaks the promise") as caught:
        check(Case(functools.partial(layer_class, features=3), XS))
    for word in words:
        assert word in str(caught.value)


def test_there_is_a_broken_layer_for_every_check():
    assert {name for name, _, _ in BROKEN} == {check.__name__ for check in CHECKS}


def skipping(*names):
    return [check.__name__ for check in CHECKS if check.__name__ not in names]


def test_check_layer_tells_of_all_broken_promises_at_once():
    class Broken(OtherStep, SaysNothing):
        pass

    build = functools.partial(Broken, features=3)
    with pytest.raises(AssertionError) as caught:
        check_layer(build, XS, skip=skipping("check_steps", "check_describe"))
    text = str(caught.value)
    assert text.startswith("check_steps: Broken breaks the promise: stepping")
    assert "\n\ncheck_describe: Broken breaks the promise" in text
    check_layer(build, XS, skip=skipping("check_shapes"))


def test_wrong_uses_of_the_kit():
    build = functools.partial(ScanElman, features=3)
    with pytest.raises(ValueError, match=r"skip: expected names of checks, got \['check_step'\]"):
        check_layer(build, XS, skip=["check_step"])
    for shape in ((4, 2), (3, 3, 2), (4, 2, 2), (4, 3, 2, 2)):
        with pytest.raises(ValueError, match=r"expected \(T, B, D\) with T >= 4 and B >= 3"):
            Case(build, some(shape))


def test_what_does_not_concern_a_layer_is_skipped():
    case = Case(COMPOSITES["bidirectional"], XS, PASSED_ON)
    concerned = {
        check.__name__
        for check in CHECKS
        if check.__name__ in ("check_steps", "check_chunks", "check_causality", "check_reverse")
        and not _skipped(check, case)
    }
    assert not concerned
    without = Case(COMPOSITES["bidirectional"], XS)
    assert not without.supports("implementation") and case.supports("implementation")
    with pytest.raises(unittest.SkipTest, match="no option implementation"):
        without.variant(implementation="scan")


def _skipped(check, case):
    try:
        check(case)
    except unittest.SkipTest:
        return True
    return False
