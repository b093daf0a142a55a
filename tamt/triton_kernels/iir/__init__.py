"""The IIR engine: filters with a linear recursion per channel; what it does is told in launch.py."""

from .launch import Tiling, iir_backward, iir_forward

__all__ = ["Tiling", "iir_backward", "iir_forward"]
