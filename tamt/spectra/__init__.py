"""Short-time spectra of loudness models."""

from .moore2016 import Moore2016Spectrum
from .multiresolution import MultiResolutionFFT

__all__ = ["Moore2016Spectrum", "MultiResolutionFFT"]
