r"""Pictures of filterbanks and of what they make of a sound.

Needs matplotlib (``pip install 'tamt[plot]'``). Every function returns a :class:`matplotlib.figure.Figure` of its own,
drawn without pyplot: nothing has to be closed, and no display is needed. Titles and labels are shown as they are: ``$``
is a dollar sign, what the fonts lack is shown as an escape (``\u65e5``), and long titles are broken into lines.
Ranges follow what is finite in the data; NaN is left out.
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
