"""Finding names, in the table of this process first and among the installed plugins second."""

import fnmatch

from registry import plugins, renames, store
from registry.errors import UnknownNameError
from registry.specs import Spec


def names(pattern: str = "*", family: str | None = None, tag: str | None = None) -> list[str]:
    """Lists names in alphabetical order, without importing anything that they stand for.

    Installed plugins are looked for anew at every call.

    Args:
        pattern: a shell-style pattern (`*`, `?`, `[...]`) that the whole name matches.
        family: only names of this family. A plugin's family is known once it has been loaded and
            has registered itself; until then, only `family=None` lists it.
        tag: only names with this tag, which says what a layer can do; a plugin's are known when
            its family is. Built-in layers have these:

            - "parallel": the recurrence may run in parallel over time
              (`implementation="parallel"`).
            - "kernel": the time loop may be one GPU kernel (`implementation="kernel"`).
            - "intervals": the layer reads elapsed times.
            - "convolutional": xs have axes of space.
            - "composite": the layer is made of others, and can do what they can.

    Returns:
        The names, without aliases.

    Example:
        >>> import registry
        >>> registry.names("scan_*lstm", family="recurrent")
        ['scan_conv_lstm', 'scan_layer_norm_lstm', 'scan_lstm', 'scan_min_lstm', 'scan_slstm']
        >>> registry.names(tag="parallel")
        ['scan_lru', 'scan_min_gru', 'scan_min_lstm', 'scan_rg_lru', 'scan_s5']
    """
    return [entry.name for entry in entries(pattern, family, tag)]


def spec(name: str) -> Spec:
    """Looks up everything that is known about a name or alias, and imports its factory.

    Raises:
        UnknownNameError: nothing has this name.
        LoadError: what has this name cannot be loaded.

    Example:
        >>> import registry
        >>> def scan_sum(features, scale=1.0):
        ...     "Sums over time."
        >>> with registry.temporary("acme.scan_sum", scan_sum):
        ...     spec = registry.spec("acme.scan_sum")
        >>> spec.summary, dict(spec.defaults), spec.factory is scan_sum
        ('Sums over time.', {'scale': 1.0}, True)
    """
    registered = store.registered(name)
    if registered is None:
        plugin = plugins.find(name)
        if plugin is None:
            found = plugins.last_scan()
            raise UnknownNameError(name, [*store.keys(), *found.claims], found.unreadable)
        loaded = plugin.resolved()
        # A plugin's module may register the name itself, with more to say than an entry point has.
        registered = store.registered(name) or loaded
    renames.check_name(name, registered)
    return registered.resolved()


def entries(pattern: str = "*", family: str | None = None, tag: str | None = None) -> list[Spec]:
    """Returns what is known of the same names as `names` gives without importing anything.

    The specs are unresolved: a factory may still be an import path, with no defaults read off it.
    """
    known = {entry.name: entry for entry in store.everything()}
    # What this process registered goes before what a plugin claims, be it a name or an alias.
    taken = set(store.keys())
    for name, claims in plugins.scan().claims.items():
        if plugins.allowed(name) and name not in taken:
            known[name] = claims[0]
    return [
        known[name]
        for name in sorted(known)
        if fnmatch.fnmatchcase(name, pattern)
        and family in (None, known[name].family)
        and (tag is None or tag in known[name].tags)
    ]
