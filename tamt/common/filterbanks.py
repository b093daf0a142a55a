"""The filterbanks and scales under the import path of ``torch_amt.common.filterbanks``."""

from tamt import GammatoneFilterbank, audfiltbw, erb2fc, erbrate2f, erbspacebw, f2erb, f2erbrate, fc2erb

__all__ = [
    "GammatoneFilterbank",
    "audfiltbw",
    "erb2fc",
    "erbrate2f",
    "erbspacebw",
    "f2erb",
    "f2erbrate",
    "fc2erb",
]
