r"""Pictures of filterbanks and of what they make of a sound.

Needs matplotlib (``pip install 'tamt[plot]'``). Every function returns a :class:`matplotlib.figure.Figure` of its own,
drawn without pyplot: nothing has to be closed, and no display is needed. Titles and labels are shown as they are: ``$``
is a dollar sign, and long titles are broken into lines. Letters that the fonts of matplotlib's settings lack are taken
from the usual fonts for Chinese, Japanese and Korean where one is installed; else they are escapes (``\u65e5``).

Frequencies, and levels of what goes in, may come in any order: axes and colours follow the numbers. Ranges follow what
is finite in the data. NaN and infinity are left out, and silence (0, -inf dB) is drawn at the bottom or dark; data of
nothing but NaN and infinity are a ValueError. ``fc`` of a bank is the design's: of gammatone filters that have learnt
give ``bank.design()["fc"]``.
"""

from .filters import filter_responses, io_functions, tuning_curves
from .levels import cochleagram, components, excitation_patterns, level_map
from .loudness import loudness

__all__ = [
    "cochleagram",
    "components",
    "excitation_patterns",
    "filter_responses",
    "io_functions",
    "level_map",
    "loudness",
    "tuning_curves",
]
