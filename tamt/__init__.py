"""Auditory filterbanks for PyTorch."""

from tamt.excitation.erb_integration import ERBIntegration
from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.excitation.moore2016 import Moore2016ExcitationPattern

from .filterbanks import Cochleagram, DRNLFilterbank, FastDRNLFilterbank, GammatoneFilterbank
from .loudness import AttackRelease
from .scales import audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb
from .spectra import Moore2016Spectrum, MultiResolutionFFT

__version__ = "0.1.0"

__all__ = [
    "AttackRelease",
    "Cochleagram",
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
