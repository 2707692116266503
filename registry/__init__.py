"""Names for layers: register them, find them, build them from a name and options.

    import registry

    registry.names("scan_*")                             # what there is
    registry.names(tag="parallel")                       # what has a property
    print(registry.describe("scan_gru"))                 # options, shapes, papers
    layer = registry.build("scan_gru", features=64)
    layer = registry.build({"name": "scan_gru", "features": 64})   # from JSON or YAML

Layers of your own get a dotted name, in your process

    @registry.register("acme.scan_foo", family="recurrent")
    class ScanFoo(nn.Module): ...

or, for everybody who installs your distribution, through an entry point

    [project.entry-points."zoo.modules"]
    "acme.scan_foo" = "acme_layers:ScanFoo"

Both together work: the entry point finds the module, which registers the name with all that there
is to say about it. Names of this process go before entry points. Everything here may be called from
many threads, and nothing that a name stands for is imported before it is needed.
"""

from registry.building import build as build
from registry.description import describe as describe
from registry.errors import DuplicateNameError as DuplicateNameError
from registry.errors import LoadError as LoadError
from registry.errors import RegistryError as RegistryError
from registry.errors import UnknownNameError as UnknownNameError
from registry.errors import WrongOptionError as WrongOptionError
from registry.lookup import names as names
from registry.lookup import spec as spec
from registry.specs import Spec as Spec
from registry.store import register as register
from registry.store import temporary as temporary
from registry.store import unregister as unregister
from registry.text import type_text as type_text
from registry.text import value_text as value_text
from zoo import __version__ as __version__
