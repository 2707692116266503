"""On eight devices, layers give what they give on one, and meet outside of time loops."""

import dataclasses
import functools
import itertools
import json

import pytest

from .cases import DEVICES, KERNELS, LAYERS, MESHES, Case
from .subprocesses import started

QUICK = (
    Case("gru", "fused", "auto", "conditions"),
    Case("gru", "fused", "auto", steps=256, every=None),
    Case("gru", "fused", "explicit", "conditions"),
    Case("gru", "fused", "shard_map", "conditions"),
    Case("gru", "scan", "explicit, both"),
    Case("gru", "fused", "shard_map", "conditions", form="nnx"),
    Case("gru", "fused", "auto, both", "conditions", form="nnx"),
)
BATCH = ("auto", "explicit", "shard_map", "auto, both", "explicit, both")
FEW = ("auto", "explicit", "shard_map")
THOROUGH = tuple(
    case
    for case in (
        *itertools.starmap(Case, itertools.product(["gru"], ["scan", "fused"], MESHES)),
        *(Case(layer, "fused", mesh) for layer, mesh in zip(LAYERS, itertools.cycle(FEW))),
        # A diagonal kernel is a vector, and has no columns to be sharded over.
        *(Case(layer, "scan", "explicit, both") for layer in LAYERS if layer != "diagonal"),
        *(Case("lstm", "fused", mesh, "conditions") for mesh in BATCH),
        Case("stack", "fused", "explicit, both", "conditions"),
        *(Case("linear", "parallel", mesh) for mesh in FEW),
        *(Case("gru", "scan", mesh, form="nnx") for mesh in ("auto", "explicit", "explicit, both")),
        *(Case("stack", "fused", mesh, "conditions", form="nnx") for mesh in BATCH),
        *(Case("complex", "fused", mesh, "conditions") for mesh in FEW),
        Case("complex", "parallel", "shard_map", "conditions"),
        Case("complex", "fused", "auto", steps=256, every=None),
        *(Case("lstm", "fused", mesh, "dropouts") for mesh in ("auto", "explicit, both")),
        *(Case(layer, "scan", "explicit", "dropouts") for layer in ("bidirectional", "stack")),
        *(Case("lstm", "fused", mesh, steps=256, every=None) for mesh in ("auto", "shard_map")),
    )
    # Inside shard_map every device draws the same masks for another part of the batch.
    if case not in QUICK and (case.mesh, case.given) != ("shard_map", "dropouts")
)
THOROUGH = tuple(dict.fromkeys(THOROUGH))


@functools.cache
def answers(cases: tuple[Case, ...]) -> dict[str, dict]:
    """Puts cases to one program, one after the other; it may die of one."""
    asked = "\n".join(json.dumps(dataclasses.asdict(case)) for case in cases)
    with started("-m", "tests.placement.cases", devices=DEVICES) as process:
        told, errors = process.communicate(asked)
    found = {answer["case"]: answer for answer in map(json.loads, told.splitlines())}
    return {str(case): found.get(str(case), {"error": errors}) for case in cases}


@pytest.mark.parametrize(
    ("case", "cases"),
    [
        *(pytest.param(case, QUICK, id=str(case)) for case in QUICK),
        *(
            pytest.param(case, cases, id=str(case), marks=pytest.mark.slow)
            for layer in LAYERS
            if (cases := tuple(case for case in THOROUGH if case.layer == layer))
            for case in cases
        ),
    ],
)
def test_a_gradient_step_on_a_mesh(case, cases):
    answer = answers(cases)[str(case)]
    assert "error" not in answer, answer["error"]
    # Normalising a state that is all but zero multiplies rounding by up to a thousand.
    assert answer["distance"] < (5e-5 if case.layer == "layer_norm" else 2e-6)
    way, _, kernels = case.mesh.partition(", ")
    if way == "auto" and case.implementation == "scan":
        return  # XLA takes the sums out of the loop for accelerators, and leaves them for CPU.
    # Devices that hold columns of one kernel meet at every step; those that share out the batch
    # must not.
    sharded = "model" in KERNELS.get(kernels, ())
    allowed = {MESHES[case.mesh]["model"]} if sharded else set()
    assert {devices for _, devices in answer["meetings"]} <= allowed


def test_cases_have_names_of_their_own():
    names = [str(case) for case in (*QUICK, *THOROUGH)]
    assert len(set(names)) == len(names)
