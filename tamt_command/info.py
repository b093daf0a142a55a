"""``tamt info``: versions and devices."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

from .console import say


def version() -> str:
    """Version of tamt, without its import where it is installed."""
    if found := _installed("tamt"):
        return found
    from tamt import __version__

    return __version__


def print_info(arguments: argparse.Namespace) -> int:
    """Print versions, devices and the backend of each device."""
    say(f"{'tamt':<12}{version()}\n{'python':<12}{platform.python_version()}, {platform.platform()}")
    import torch

    from tamt.ops import backend

    say(f"{'torch':<12}{torch.__version__}")  # with the build, of which the package's metadata need not tell
    for package in ("triton", "numpy", "soundfile", "soxr", "matplotlib"):
        say(f"{package:<12}{_installed(package) or 'not installed'}")
    served = {"triton": "Triton kernels", "reference": "reference (plain torch)"}
    say("")
    for device in devices():
        kind, about = torch.device(device).type, ""
        if kind == "cpu":
            about = f", {torch.get_num_threads()} threads"
        elif kind == "cuda":
            about = f", {torch.cuda.get_device_name(device)}"
        say(f"{device:<12}{served[backend(kind)]}{about}")
    return 0


def devices() -> list[str]:
    """Torch's names of the devices of this machine."""
    import torch

    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *mps]


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
