"""Filterbanks: from a signal to the signals of its channels."""

from .cochleagram import Cochleagram
from .drnl import DRNLFilterbank
from .fast_drnl import FastDRNLFilterbank
from .gammatone import GammatoneFilterbank

__all__ = ["Cochleagram", "DRNLFilterbank", "FastDRNLFilterbank", "GammatoneFilterbank"]
