"""The command ``tamt``: a demonstration, analysis and loudness of sound files, and a report on the installation.

It reads its arguments here, outside of the package ``tamt``, whose import takes torch's seconds and defines operators,
so that help and errors are there at once. :mod:`tamt.cli` has the work. Everything but ``tamt info`` needs the extras
``audio`` and, for pictures, ``plot``: ``pip install 'tamt[audio,plot]'``.
"""

from .main import main

__all__ = ["main"]
