"""Auditory filterbanks for PyTorch."""

from .drnl import DRNLFilterbank, FastDRNLFilterbank
from .gammatone import GammatoneFilterbank
from .scales import audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb

__version__ = "0.1.0"

__all__ = [
    "DRNLFilterbank",
    "FastDRNLFilterbank",
    "GammatoneFilterbank",
    "audfiltbw",
    "erb2fc",
    "erbrate2f",
    "erbspacebw",
    "f2erb",
    "f2erbrate",
    "fc2erb",
]
