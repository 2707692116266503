"""What `from_torch` is given: modules and what is made of them, checkpoints, safetensors files."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.recurrent.convert.errors import ConversionError, refuse

_QUANTISED = "Convert the module as it was before quantisation: int8 products have no equal here."


def recurrent_module(source: Any, prefix: str) -> Any:
    """Returns the `torch.nn` recurrent module at `prefix`, with what `torch.compile` puts around.

    Raises:
        ConversionError: there is none, or one that may compute something else than its base.
        TypeError: `source` is no module.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(source, torch.nn.Module):
        hint = ""
        if hasattr(source, "state_dict"):
            hint = " Give its state_dict."
        raise TypeError(
            "from_torch: expected a torch module, a state dict, or the path of a .safetensors "
            f"file; got a {type(source).__name__}.{hint}"
        )
    known = (torch.nn.RNNBase, torch.nn.RNNCellBase)
    source = _uncompiled(source)
    module: Any = source
    for name in filter(None, prefix.split(".")):
        # None too: a module may have registered None under a name.
        module = getattr(module, "_modules", {}).get(name)
        module = module if module is None else _uncompiled(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise refuse(
            f"torch {module.original_name}, a TorchScript module,",
            "a compiled program does not say whether it is that of torch.nn.",
            "If it is, give its weights: from_torch(module.state_dict(), batch_first=..., "
            "nonlinearity=...).",
        )
    if module is not None and ".quantiz" in type(module).__module__:
        raise refuse(
            f"{type(module).__module__}.{type(module).__name__}",
            "its weights were rounded to whole numbers.",
            _QUANTISED,
        )
    if not isinstance(module, known):
        inside = [repr(path) for path, m in source.named_modules() if isinstance(m, known)]
        raise ConversionError(
            f"torch {type(source).__name__}: expected a torch.nn GRU, LSTM or RNN at the prefix "
            f"{prefix!r}; found {type(module).__name__ if module is not None else 'nothing'}. "
            + (f"Recurrent modules lie at {', '.join(inside)}." if inside else "It holds none.")
        )
    _check_forward(module)
    return module


def weights_of(module: Any) -> dict[str, Any]:
    """Returns the state dict of a recurrent module with the weights that its forward computes with.

    A parametrised weight (`torch.nn.utils.parametrize`, `weight_norm`, `spectral_norm`, `prune`) is
    computed from what the module keeps in its place, as in evaluation, which changes no buffers.
    """
    torch = sys.modules["torch"]
    state = dict(module.state_dict())
    with torch.no_grad():
        for name, made in getattr(module, "parametrizations", {}).items():
            with _evaluating(made):
                _replace(state, name, rf"parametrizations\.{name}\..*", made())
        for hook in module._forward_pre_hooks.values():
            name: Any = getattr(hook, "name", getattr(hook, "_tensor_name", None))
            if hasattr(hook, "apply_mask"):
                _replace(state, name, rf"{name}_(orig|mask)", hook.apply_mask(module))
            elif hasattr(hook, "compute_weight"):
                # Spectral norm makes its estimate better at every step of training.
                frozen = {"do_power_iteration": False} if hasattr(hook, "eps") else {}
                weight = hook.compute_weight(module, **frozen)
                _replace(state, name, rf"{name}_(orig|g|v|u)", weight)
    return state


def check_state_dict(source: Mapping[Any, Any], prefix: str) -> None:
    """Checks that a mapping is a state dict and not a whole checkpoint.

    Raises:
        ConversionError: it has no weights under `prefix` itself and other mappings, or modules, as
            values, or keys that are no strings.
    """
    weights = [k for k in source if isinstance(k, str) and re.search(r"(^|\.)weight_[ih]h", k)]
    nested = {
        key: getattr(value, "state_dict", lambda value=value: value)()
        for key, value in source.items()
        if isinstance(value, Mapping) or hasattr(value, "state_dict")
    }
    if not weights and nested:
        pattern = re.compile(r"(^|\.)weight_[ih]h")
        held = [
            key
            for key, value in nested.items()
            if any(isinstance(k, str) and pattern.search(k) for k in value)
        ]
        cure = f"Give checkpoint[{held[0]!r}] alone." if held else "None has recurrent weights."
        raise ConversionError(
            "torch state dict: expected names of weights -> arrays; got a mapping with other "
            f"mappings or modules at {list(nested)}. Likely cause: a whole checkpoint of a "
            f"training. {cure}"
        )


def read_safetensors(path: str | os.PathLike[str], prefix: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a file under `prefix`, and the names of all others.

    Raises:
        ConversionError: it is no file, or one of another format.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(each.name for each in path.glob("*.safetensors"))
        raise ConversionError(
            f"{path.name}: expected a .safetensors file; it is a directory"
            + (f". Give one of its files: {files}." if files else " without any.")
        )
    if path.suffix != ".safetensors":
        raise ConversionError(
            f"{path.name}: expected a .safetensors file. Other torch files hold pickles, "
            "which can run code and are never opened here. Load it yourself with torch.load(path, "
            "weights_only=True) and give the state dict."
        )
    if not path.exists():
        link = "a symbolic link that leads to no file" if path.is_symlink() else "nothing"
        raise FileNotFoundError(
            f"{path}: expected a .safetensors file; found {link}. Check the path."
        )
    if not path.is_file():
        raise ConversionError(
            f"{path.name}: expected a .safetensors file; it is no regular file (a pipe, a socket "
            "or a device). Copy its contents to a file first."
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            # Keys outside the prefix are needed by name only, for messages.
            return {
                key: file.get_tensor(key) if key.startswith(prefix) else np.empty(0)
                for key in file.keys()  # noqa: SIM118 (no mapping)
            }
    except SafetensorError as error:
        raise ConversionError(
            f"{path.name}: expected a safetensors file; its contents are something else "
            f"({error}). Likely cause: a pickle that was renamed, or a download that was cut short."
        ) from error
    except (TypeError, AttributeError, KeyError) as error:
        # How safetensors says that NumPy has no dtype for what the file holds.
        raise ConversionError(
            f"{path.name}: expected float16, bfloat16, float32 or float64 weights; the file holds "
            f"others ({error}). Save them widened, with tensor.to(torch.bfloat16)."
        ) from error


def _uncompiled(module: Any) -> Any:
    return getattr(module, "_orig_mod", module)


def _check_forward(module: Any) -> None:
    own = type(module)
    base = next(c for c in own.__mro__ if c.__module__ == "torch.nn.modules.rnn")
    for name in ("forward", "__call__"):
        if getattr(own, name) is not getattr(base, name) or name in vars(module):
            raise refuse(
                f"torch {own.__name__}, a {base.__name__} with a `{name}` of its own,",
                "it may compute something else than its base.",
                f"If torch.nn.{base.__name__} is what it computes, give the weights: "
                "from_torch(module.state_dict(), batch_first=..., nonlinearity=...).",
            )


def _replace(state: dict[str, Any], name: str, pattern: str, weight: Any) -> None:
    for key in [key for key in state if re.fullmatch(pattern, key)]:
        del state[key]
    state[name] = weight


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    were = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in were:
            each.training = training
