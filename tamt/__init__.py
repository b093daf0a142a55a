"""Auditory filterbanks for PyTorch."""

from .drnl import DRNLFilterbank, FastDRNLFilterbank
from .excitation import ERBIntegration, ExcitationPattern, Moore2016ExcitationPattern
from .gammatone import GammatoneFilterbank
from .multiresolution import MultiResolutionFFT
from .scales import audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb
from .spectrum import Moore2016Spectrum

__version__ = "0.1.0"

__all__ = [
    "DRNLFilterbank",
    "ERBIntegration",
    "ExcitationPattern",
    "FastDRNLFilterbank",
    "GammatoneFilterbank",
    "Moore2016ExcitationPattern",
    "Moore2016Spectrum",
    "MultiResolutionFFT",
    "audfiltbw",
    "erb2fc",
    "erbrate2f",
    "erbspacebw",
    "f2erb",
    "f2erbrate",
    "fc2erb",
]
