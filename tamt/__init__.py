"""Auditory filterbanks for PyTorch.

The import registers the operators ``torch.ops.tamt``, whichever of ``tamt`` and ``torch`` is imported first: programs
that were exported need them. It is for this that it imports torch, and that the command, :mod:`tamt_command`, stands
beside it.
"""

from tamt.ear.outer_middle_ear import OuterMiddleEar
from tamt.excitation.erb_integration import ERBIntegration
from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.excitation.moore2016 import Moore2016ExcitationPattern

from .filterbanks import Cochleagram, DRNLFilterbank, FastDRNLFilterbank, GammatoneFilterbank
from .loudness import (
    AttackRelease,
    BinauralInhibition,
    Glasberg2002Loudness,
    Glasberg2002SpecificLoudness,
    Moore2016Loudness,
    Moore2016SpecificLoudness,
    phon2sone,
    sone2phon,
)
from .scales import audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb
from .spectra import Moore2016Spectrum, MultiResolutionFFT

__version__ = "0.1.0"

__all__ = [
    "AttackRelease",
    "BinauralInhibition",
    "Cochleagram",
    "DRNLFilterbank",
    "ERBIntegration",
    "ExcitationPattern",
    "FastDRNLFilterbank",
    "GammatoneFilterbank",
    "Glasberg2002Loudness",
    "Glasberg2002SpecificLoudness",
    "Moore2016ExcitationPattern",
    "Moore2016Loudness",
    "Moore2016SpecificLoudness",
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
    "phon2sone",
    "sone2phon",
]
