"""Recurrent layers for Flax: one contract, one convention, several engines."""

from zoo.recurrent.bidirectional import Bidirectional as Bidirectional
from zoo.recurrent.bidirectional import build_bidirectional as build_bidirectional
from zoo.recurrent.contract import RecurrentLayer as RecurrentLayer
from zoo.recurrent.convention import DEPTH as DEPTH
from zoo.recurrent.convention import TIME as TIME
from zoo.recurrent.convention import Convention as Convention
from zoo.recurrent.functional import scan_rnn_forward as scan_rnn_forward
from zoo.recurrent.layers import ScanElman as ScanElman
from zoo.recurrent.layers import ScanGRU as ScanGRU
from zoo.recurrent.layers import ScanLayerNormGRU as ScanLayerNormGRU
from zoo.recurrent.layers import ScanLayerNormLSTM as ScanLayerNormLSTM
from zoo.recurrent.layers import ScanLSTM as ScanLSTM
from zoo.recurrent.layers import ScanMGU as ScanMGU
from zoo.recurrent.layers import ScanSimplifiedGRU as ScanSimplifiedGRU
from zoo.recurrent.scanned import scanned as scanned
from zoo.recurrent.stack import Stack as Stack
from zoo.recurrent.stack import build_stack as build_stack
