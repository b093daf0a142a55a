"""The functional API: one module per operation, and what serves a type of device."""

from tamt.ops._operator import backend

__all__ = ["backend"]
