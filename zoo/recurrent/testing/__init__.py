"""A conformance kit: given how to build a layer, it checks every promise of the contract.

The author of a layer runs all checks at once::

    from zoo.recurrent.testing import check_layer

    def test_my_layer():
        check_layer(functools.partial(MyLayer, features=4), xs)

or one test per check, over a table of layers; see docs/testing.md.
"""

from zoo.recurrent.testing.case import Case as Case
from zoo.recurrent.testing.suite import CHECKS as CHECKS
from zoo.recurrent.testing.suite import check_layer as check_layer
