"""Building what a name stands for."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from registry.errors import WrongOptionError
from registry.lookup import spec
from registry.renames import current_options
from registry.specs import options
from registry.text import signature_text
from zoo.catalogue import BuiltInName

if TYPE_CHECKING:
    from zoo.recurrent import RecurrentLayer


@overload
def build(name_or_mapping: BuiltInName, /, **config: Any) -> "RecurrentLayer": ...


@overload
def build(name_or_mapping: str | Mapping[str, Any], /, **config: Any) -> Any: ...


def build(name_or_mapping: str | Mapping[str, Any], /, **config: Any) -> Any:
    """Builds a layer from its name and options, or from a mapping that holds both.

    A mapping is what a JSON or YAML file holds: `{"name": "scan_gru", "features": 64}` means
    `build("scan_gru", features=64)`. It is not changed. Keyword arguments go before its entries. A
    mapping inside it (the `layer` of a `stack`) reaches the factory as it is; such a factory builds
    it with this function.

    Flax's own name for a module is given by keyword, to names and mappings alike:
    `build({"name": "scan_gru", "features": 64}, name="encoder")`.

    Args:
        name_or_mapping: a registered name or alias, or a mapping with that under `"name"`.
        **config: options of the layer.

    Returns:
        What the factory returns: for every built-in a `flax.linen.Module`.

    Raises:
        UnknownNameError: nothing has this name.
        LoadError: what has this name cannot be loaded.
        WrongOptionError: an option is unknown to the factory, or one that it needs is missing.
        TypeError: neither a name nor a mapping with a name was given.

    Example:
        >>> import registry
        >>> def scan_sum(features, scale=1.0):
        ...     return f"sum of {features}, times {scale}"
        >>> with registry.temporary("acme.scan_sum", scan_sum):
        ...     registry.build("acme.scan_sum", features=8)
        ...     registry.build({"name": "acme.scan_sum", "features": 8}, scale=0.5)
        'sum of 8, times 1.0'
        'sum of 8, times 0.5'
    """
    name, config = split(name_or_mapping, config)
    found = spec(name)
    config = current_options(found, config)
    check_options(found.name, found.factory, config)
    return found.factory(**config)


def split(
    name_or_mapping: str | Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Takes `build`'s arguments apart into the registered name and the options.

    Raises:
        TypeError: neither a name nor a mapping with a name was given.

    Example:
        >>> split({"name": "scan_gru", "features": 8}, {"name": "encoder"})
        ('scan_gru', {'features': 8, 'name': 'encoder'})
    """
    name, given = name_or_mapping, {}
    if isinstance(name_or_mapping, Mapping):
        given = dict(name_or_mapping)
        name = given.pop("name", None)
    if not isinstance(name, str) or not all(isinstance(option, str) for option in given):
        raise TypeError(
            "expected a registered name, or a mapping of one under 'name' and of options, like "
            f"{{'name': 'scan_gru', 'features': 64}}, got {name_or_mapping!r} of type "
            f"{type(name_or_mapping).__name__}"
        )
    return name, {**given, **config}


def check_options(
    name: str, factory: Callable[..., Any], config: Mapping[str, Any], *, partly: bool = False
) -> None:
    """Compares options with the signature of the factory, before it is called.

    Args:
        name: the registered name, for the message.
        factory: what would be called with `**config`.
        config: the options.
        partly: more options may follow, so that none counts as missing.

    Raises:
        WrongOptionError: an option is unknown or missing. Unknown ones are named first, because
            they are often the missing ones misspelt.
    """
    parameters = options(factory)
    if parameters is None:
        return
    by_name = {
        option: parameter
        for option, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [option for option in config if option not in by_name and not takes_any]
    missing = [
        option
        for option, parameter in by_name.items()
        if parameter.default is parameter.empty and option not in config and not partly
    ]
    if unknown or missing:
        signature = f"{name}{signature_text(factory)}"
        raise WrongOptionError(name, unknown, missing, list(by_name), signature)
