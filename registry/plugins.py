"""Layers of other distributions, found through their entry points.

A distribution that brings layers lists them in the group `zoo.modules`, one entry per dotted name:

    [zoo.modules]
    acme.scan_foo = acme_layers:ScanFoo

Finding them reads metadata only. A plugin's code is imported when its name is built, described or
looked up with `registry.spec`, never before.
"""

import importlib
from importlib import metadata
from typing import NamedTuple, cast

from registry.errors import LoadError
from registry.specs import Spec

GROUP = "zoo.modules"


class Scan(NamedTuple):
    """What the installed distributions claim.

    Attributes:
        claims: name → one unresolved spec per distribution that claims the name.
        unreadable: distributions whose entry points could not be read, each with the reason.
    """

    claims: dict[str, list[Spec]]
    unreadable: list[str]


_last_scan: Scan | None = None


def scan() -> Scan:
    """Reads the entry points of all installed distributions, without importing any of them."""
    global _last_scan
    # Without these, what was installed a moment ago may stay invisible. An instance, because the
    # method is a classmethod from Python 3.12 on only.
    importlib.invalidate_caches()
    metadata.MetadataPathFinder().invalidate_caches()
    found, seen = Scan({}, []), set()
    for distribution in metadata.distributions():
        try:
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = _name_of(distribution)
            if name not in seen:
                seen.add(name)
                # The one that imports would find: an older copy further down sys.path is hidden.
                # Without a name, `distribution` raises the ValueError that is reported below.
                for spec in _claims(metadata.distribution(cast("str", name))):
                    found.claims.setdefault(spec.name, []).append(spec)
        except Exception as error:  # whatever a damaged file provokes, the others are still read
            label = _name_of(distribution) or "a distribution without a name"
            found.unreadable.append(f"{label} ({type(error).__name__}: {error})")
    _last_scan = found
    return found


def _name_of(distribution: metadata.Distribution) -> str | None:
    """None where it has none: for ``distribution.name``, newer Pythons warn then, or raise."""
    try:
        return distribution.metadata.get("Name")  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:
        return None


def last_scan() -> Scan:
    """Returns what was found last, and scans only if nothing was."""
    return _last_scan or scan()


def find(name: str) -> Spec | None:
    """Returns the unresolved spec of the plugin called `name`, or None where there is none.

    A name that the last scan did not know is looked for again, so that a plugin may be installed
    while the process runs.

    Raises:
        LoadError: the name is undotted, or claimed by several distributions.
    """
    claims = last_scan().claims.get(name) or scan().claims.get(name)
    if not claims:
        return None
    where = " and ".join(spec.where for spec in claims)
    if not allowed(name):
        reason = f"only built-ins have names without a dot; rename it, to 'acme.{name}' say"
        raise LoadError(name, where, reason)
    if len(claims) > 1:
        raise LoadError(name, where, "only one distribution can have it; uninstall the others")
    return claims[0]


def allowed(name: str) -> bool:
    """Tells whether a plugin may have this name: dotted, so that no later built-in can want it."""
    return "." in name


def _claims(distribution: metadata.Distribution) -> list[Spec]:
    where = f"entry point of {distribution.name} {distribution.version}"
    return [
        Spec(entry.name, entry.value.partition("[")[0].strip(), where=where)
        for entry in distribution.entry_points.select(group=GROUP)
    ]
