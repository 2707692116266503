"""Linear layers whose time axis is shared out over devices give what they give on one."""

import dataclasses
import functools
import itertools
import json

import pytest

from .shared_time import DEVICES, LAYERS, Case
from .subprocesses import losses, started

LEAVES = ("min_gru", "min_lstm", "lru", "s5", "rg_lru")
FUNCTIONAL = ("elements", "complex")
WAYS = ("explicit", "shard_map")
QUICK = (
    Case("min_gru", given="everything"),
    Case("min_gru", "shard_map", reverse=True, given="everything"),
    Case("lru", "shard_map", "time"),
    Case("lru", given="nan, resets"),
)
HALF = tuple(
    Case(layer, way, given="everything", options=(("dtype", "bfloat16"),))
    for layer, way in zip(("min_gru", "lru"), WAYS, strict=True)
)
THOROUGH = tuple(
    dict.fromkeys(
        case
        for case in (
            *itertools.starmap(
                Case,
                itertools.product(
                    [name for name in LAYERS if name not in FUNCTIONAL],
                    *(WAYS, ["both"], [False, True], ["everything"]),
                ),
            ),
            *itertools.starmap(
                Case,
                itertools.product(
                    FUNCTIONAL, WAYS, ["both"], [False, True], ["nothing", "resets", "nan, resets"]
                ),
            ),
            Case("min_gru", "shard_map", "time", given="lengths that are known"),
            *(Case("lru", way, given="everything", options=(("time_axis", 1),)) for way in WAYS),
            *(Case(layer, way, "time") for layer, way in itertools.product(LEAVES, WAYS)),
            *(
                Case("min_gru", way, "both", reverse, given)
                for way, reverse, given in itertools.product(
                    WAYS, [False, True], ["nan", "nan, resets", "nan, lengths", "mask"]
                )
            ),
            *(Case("s5", way, given="intervals") for way in WAYS),
            *(
                Case(layer, "explicit", "both", reverse, given, "gradient", (option,))
                for layer, reverse in itertools.product(["min_gru", "lru"], [False, True])
                for given, option in [
                    ("everything", ("truncate_every", 5)),
                    ("nothing", ("truncate_every", 8)),
                    ("everything", ("checkpoint_every", 3)),
                    ("everything", ("learned_carry", True)),
                    ("everything", ("implementation", "parallel")),
                ]
            ),
            Case("min_gru", given="dropouts", options=(("dropout_rate", 0.3),)),
            Case("lru", given="dropouts", options=(("zoneout_rate", 0.3),)),
            Case("lru", mesh="two", given="everything"),
            *(Case(layer, mesh="columns", given="everything") for layer in LEAVES),
            *(
                Case(layer, way, given=given, mode=mode)
                for layer, way in zip(["min_gru", "lru"], WAYS, strict=True)
                for given, mode in [("everything", "forward"), ("resets", "second")]
            ),
            Case("lru", given="everything", mode="forward", options=(("truncate_every", 5),)),
        )
        if case not in QUICK
    )
)


@functools.cache
def answers(cases: tuple[Case, ...], dtype: str) -> dict[str, dict]:
    """Puts cases to one program, one after the other; it may die of one."""
    asked = "\n".join(json.dumps(dataclasses.asdict(case)) for case in cases)
    with started("-m", "tests.placement.shared_time", dtype, devices=DEVICES) as process:
        told, errors = process.communicate(asked)
    found = {answer["case"]: answer for answer in map(json.loads, told.splitlines())}
    return {str(case): found.get(str(case), {"error": errors}) for case in cases}


def answer(case: Case, cases: tuple[Case, ...], dtype: str) -> dict:
    found = answers(cases, dtype)[str(case)]
    assert "error" not in found, found["error"]
    return found


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_a_gradient_step(case):
    found = answer(case, (*QUICK, *LONG), "float32")
    assert found["distance"] < 1e-5
    assert found["meetings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", HALF, ids=str)
def test_products_in_half_precision(case):
    # One rounding of bfloat16 apart: it multiplies the same numbers, and adds them up in float32.
    assert answer(case, HALF, "float32")["distance"] < 2**-7


@pytest.mark.slow
@pytest.mark.parametrize("case", THOROUGH, ids=str)
def test_a_derivative_in_double_precision(case):
    found = answer(case, tuple(x for x in THOROUGH if x.layer == case.layer), "float64")
    assert found["distance"] < 1e-10
    assert found["meetings"] == []


# Loops of as many steps as there are parts, or layers above the first, are none over time.
LONG = tuple(
    Case("min_gru", way, given=given, mode=mode, steps=steps)
    for way, given, mode in [
        ("explicit", "nothing", "values"),
        ("explicit", "nothing", "gradient"),
        ("shard_map", "resets", "gradient"),
    ]
    for steps in (64, 128)
)


@pytest.mark.parametrize(
    ("short", "long"), [LONG[k : k + 2] for k in range(0, len(LONG), 2)], ids=str
)
def test_what_crosses_devices_does_not_depend_on_the_number_of_steps(short, long):
    short, long = (answer(case, (*QUICK, *LONG), "float32") for case in (short, long))
    assert short["crossing"] == long["crossing"]
    assert short["meetings"] == long["meetings"] == []
    assert short["distance"] < 1e-5 and long["distance"] < 1e-5


@pytest.mark.parametrize(
    ("case", "expected"),
    [(LONG[0], 1), (LONG[2], 2), (LONG[4], 3)],
    ids=["values", "gradient", "with resets"],
)
def test_devices_meet_once_in_each_direction(case, expected):
    """And once more for booleans, where resets are to stop what is not finite."""
    crossing = answer(case, (*QUICK, *LONG), "float32")["crossing"]
    assert len([what for what in crossing if what.startswith("all-gather")]) == expected


def test_gradients_behind_a_reset_do_not_feel_what_was_not_finite():
    case = Case("lru", given="nan, resets")
    assert answer(case, (*QUICK, *LONG), "float32")["finite"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_two_processes_train_as_one_does(devices):
    program = "-m", "tests.placement.train_time"
    joined = losses(*program, processes=2, devices=devices)
    assert len(joined) == 3 and joined[0] > joined[1] > joined[2]
    assert joined == pytest.approx(losses(*program, processes=1, devices=1), abs=2e-6)
