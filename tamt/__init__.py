"""Auditory filterbanks for PyTorch."""

from tamt.ear.outer_middle_ear import OuterMiddleEar
from tamt.excitation.erb_integration import ERBIntegration
from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.excitation.moore2016 import Moore2016ExcitationPattern

from .filterbanks import Cochleagram, DRNLFilterbank, FastDRNLFilterbank, GammatoneFilterbank
from .scales import audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb
from .spectra import Moore2016Spectrum, MultiResolutionFFT

__version__ = "0.1.0"

__all__ = [
    "Cochleagram",
    "DRNLFilterbank",
    "ERBIntegration",
    "ExcitationPattern",
    "FastDRNLFilterbank",
    "GammatoneFilterbank",
    "Moore2016ExcitationPattern",
    "Moore2016Spectrum",
    "MultiResolutionFFT",
    "OuterMiddleEar",
    "audfiltbw",
    "erb2fc",
    "erbrate2f",
    "erbspacebw",
    "f2erb",
    "f2erbrate",
    "fc2erb",
]
