"""Excitation of the ear: power per auditory filter."""

from .erb_integration import ERBIntegration
from .glasberg2002 import ExcitationPattern
from .moore2016 import Moore2016ExcitationPattern

__all__ = ["ERBIntegration", "ExcitationPattern", "Moore2016ExcitationPattern"]
