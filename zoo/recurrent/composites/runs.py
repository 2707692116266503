"""Which layers of a stack are scanned together, and where their variables lie."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from zoo.recurrent.composites.composition import LayerLike, config_of, is_plain

_NAMES = re.compile(r"first|rest|layers_\d+")


class Run(NamedTuple):
    """A part of a stack: one layer, or equal neighbours that are scanned over depth.

    Attributes:
      name: where its variables lie.
      config: how the layer is built.
      count: how many layers it stands for.
      repeated: whether its variables have a first axis, of ``count``.
      plain: whether it is a function, or a Flax module that is no recurrent layer.
    """

    name: str
    config: LayerLike
    count: int = 1  # pyright: ignore[reportIncompatibleMethodOverride]
    repeated: bool = False
    plain: bool = False


def repeated(layer: LayerLike, num_layers: int) -> list[Run]:
    """Returns the parts of a stack of equal layers: the first, and all others."""
    runs = [Run("first", layer)]
    if num_layers > 1:
        runs.append(Run("rest", layer, num_layers - 1, repeated=True))
    return runs


def listed(layers: Sequence[LayerLike]) -> list[Run]:
    """Returns the parts of a stack of listed layers: of equal neighbours, the first and all others.

    Example:
      >>> [(run.name, run.count) for run in listed(["gru", "gru", "gru", "lstm"])]
      [('layers_0', 1), ('layers_1', 2), ('layers_3', 1)]
    """
    runs: list[Run] = []
    for index, entry in enumerate(layers):
        name, plain, before = f"layers_{index}", is_plain(entry), runs[-1] if runs else None
        if before is None or plain or config_of(before.config, {}) != config_of(entry, {}):
            runs.append(Run(name, entry, plain=plain))
        elif before.repeated:
            runs[-1] = before._replace(count=before.count + 1)
        else:
            runs.append(Run(name, entry, repeated=True))
    return runs


def check_variables(runs: Sequence[Run], params: Mapping[str, Any]) -> None:
    """Requires parameters of a stack to be of its depth, so that none are left out.

    Args:
      runs: the parts of the stack.
      params: the parameters that lie where the stack is; none for a stack not initialised yet.

    Raises:
      ValueError: there are parameters of more layers, or of fewer.
    """
    names = {run.name for run in runs}
    others = sorted(name for name in params if _NAMES.fullmatch(name) and name not in names)
    if others:
        raise _another_depth(runs, f"parameters under {_listing(others)} too")
    for run in runs:
        found = params.get(run.name) if run.repeated else None
        if not isinstance(found, Mapping):
            continue
        leaves = jax.tree_util.tree_leaves_with_path(nn.meta.unbox(found))
        depths = {getattr(leaf, "shape", ())[:1] for _, leaf in leaves}
        # Where they differ, or are none, it is no other depth but a wrong array.
        if len(depths) == 1 and not depths <= {(), (run.count,)}:
            path, leaf = leaves[0]
            where = "/".join([run.name, jax.tree_util.keystr(path, simple=True, separator="/")])
            raise _another_depth(runs, f"shape {leaf.shape} at {where}")


def missing_variables(runs: Sequence[Run], params: Collection[str], error: Exception) -> Exception:
    """Returns the error to raise where Flax did not find a parameter."""
    missing = [run.name for run in runs if run.name not in params]
    if not missing or not any(map(_NAMES.fullmatch, params)):
        return error
    return _another_depth(runs, f"no parameters under {_listing(missing)}")


def _another_depth(runs: Sequence[Run], got: str) -> ValueError:
    places = [f"{run.name} (first axis {run.count})" if run.repeated else run.name for run in runs]
    depth = sum(run.count for run in runs)
    return ValueError(
        f"variables: expected those of a stack of {depth}: {', '.join(places)}, got {got}. Likely "
        "cause: variables of a stack of another depth, or of other layers. Cure: build the stack "
        "as it was when its variables were made."
    )


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names)
