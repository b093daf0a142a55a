"""The command ``tamt``: a demonstration, analysis and loudness of sound files, and a report on the installation.

Everything but ``tamt info`` needs the extras ``audio`` and, for pictures, ``plot``: ``pip install 'tamt[audio,plot]'``.
"""

from .main import main

__all__ = ["main"]
