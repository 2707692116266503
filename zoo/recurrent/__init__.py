"""Recurrent layers for Flax: one contract, one convention, several engines.

The leaf layers are attributes too (``zoo.recurrent.ScanGRU``); each is imported from its file when
it is asked for, so that a new one is listed in the catalogue and nowhere else.
"""

from typing import TYPE_CHECKING, Any

from zoo.recurrent import layers as _layers
from zoo.recurrent.composites.bidirectional import Bidirectional as Bidirectional
from zoo.recurrent.composites.bidirectional import build_bidirectional as build_bidirectional
from zoo.recurrent.composites.scanned import scanned as scanned
from zoo.recurrent.composites.stack import Stack as Stack
from zoo.recurrent.composites.stack import build_stack as build_stack
from zoo.recurrent.contract import RecurrentLayer as RecurrentLayer
from zoo.recurrent.convention import DEPTH as DEPTH
from zoo.recurrent.convention import TIME as TIME
from zoo.recurrent.convention import Convention as Convention
from zoo.recurrent.functional import scan_rnn_forward as scan_rnn_forward

if TYPE_CHECKING:
    from zoo.recurrent.layers.elman import ScanElman as ScanElman
    from zoo.recurrent.layers.gru import ScanGRU as ScanGRU
    from zoo.recurrent.layers.layer_norm import ScanLayerNormGRU as ScanLayerNormGRU
    from zoo.recurrent.layers.layer_norm import ScanLayerNormLSTM as ScanLayerNormLSTM
    from zoo.recurrent.layers.lstm import ScanLSTM as ScanLSTM
    from zoo.recurrent.layers.mgu import ScanMGU as ScanMGU
    from zoo.recurrent.layers.simplified_gru import ScanSimplifiedGRU as ScanSimplifiedGRU


def __getattr__(name: str) -> Any:
    """Finds a layer class; see ``zoo.recurrent.layers``."""
    try:
        return getattr(_layers, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    """The names of this module, and the layer classes."""
    return sorted({*globals(), *_layers.class_names()})
