"""Models of loudness, from sound in pascal to sone, and their stages."""

from .attack_release import AttackRelease
from .binaural_inhibition import BinauralInhibition
from .glasberg2002 import Glasberg2002Loudness, Loudness
from .level import phon2sone, sone2phon
from .moore2016 import BinauralLoudness, Moore2016Loudness
from .specific_loudness import Glasberg2002SpecificLoudness, Moore2016SpecificLoudness

__all__ = [
    "AttackRelease",
    "BinauralInhibition",
    "BinauralLoudness",
    "Glasberg2002Loudness",
    "Glasberg2002SpecificLoudness",
    "Loudness",
    "Moore2016Loudness",
    "Moore2016SpecificLoudness",
    "phon2sone",
    "sone2phon",
]
