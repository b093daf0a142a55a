"""What the command ``tamt`` does; its arguments are read by :mod:`tamt_command`."""

from tamt_command import main

__all__ = ["main"]
