"""The front ends of two loudness models, from sound to excitation: physics, gradients, one compiled graph."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import assert_close, assert_within
from torch import Tensor, nn

import tamt
from tamt.spl import full_scale_pascal

FS = 32000


class Glasberg2002(nn.Module):
    """Sound in pascal (B, T) to excitation levels (B, frames, bands) in dB SPL."""

    def __init__(self, learnable: bool = False) -> None:
        super().__init__()
        self.spectrum = tamt.MultiResolutionFFT(FS, learnable=learnable)
        self.bands = tamt.ERBIntegration(FS, learnable=learnable)
        self.spread = tamt.ExcitationPattern(FS, learnable=learnable)

    def forward(self, x: Tensor) -> Tensor:
        return self.spread(self.bands(*self.spectrum(x)))


class Moore2016(nn.Module):
    """Sound of both ears (B, 2, T) to excitation levels (2, B, frames, channels) in dB."""

    def __init__(self, learnable: bool = False) -> None:
        super().__init__()
        self.spectrum = tamt.Moore2016Spectrum(FS, learnable=learnable, max_components=200)
        self.pattern = tamt.Moore2016ExcitationPattern(learnable=learnable)

    def forward(self, x: Tensor) -> Tensor:
        left_freqs, left_levels, right_freqs, right_levels = self.spectrum(x)
        return torch.stack((self.pattern(left_freqs, left_levels), self.pattern(right_freqs, right_levels)))


def sound(kind: type, samples: int, batch: int = 2) -> Tensor:
    return 1e-2 * torch.randn(batch, samples) if kind is Glasberg2002 else 1e-2 * torch.randn(batch, 2, samples)


class DenseMoore2016(Moore2016):
    """The same without lists: every bin of the spectrum in every frame."""

    def forward(self, x: Tensor) -> Tensor:
        freqs, left_levels, right_levels = self.spectrum.dense(x)
        return torch.stack((self.pattern(freqs, left_levels), self.pattern(freqs, right_levels)))


every = pytest.mark.parametrize("kind", [Glasberg2002, Moore2016, DenseMoore2016])


def test_a_tone_excites_its_channel() -> None:
    """1 kHz at 60 dB SPL: the excitation peaks there.

    The windows spread a tone over an ERB, which takes up to 3 dB. In the older model bands a quarter of an ERB apart
    add what they spread into each other, which gives about 4.
    """
    time = torch.arange(FS) / FS
    tone = full_scale_pascal(60) * torch.sin(2 * math.pi * 1000 * time)
    glasberg = Glasberg2002()
    excitation = glasberg(tone)[0, 10]
    assert glasberg.bands.fc_erb[excitation.argmax()].item() == pytest.approx(1000, rel=0.03)
    assert 57 < excitation.max().item() < 64
    moore = Moore2016()
    # db_max is the level of a sine of amplitude 1
    amplitude = 10 ** ((60 - moore.spectrum.db_max) / 20)
    tone = amplitude * torch.sin(2 * math.pi * 1000 * time)
    pattern = moore(torch.stack((tone, 0.1 * tone))[None])[:, 0, 20]
    channels = moore.pattern.fc_channels[pattern.argmax(-1)]
    assert channels.tolist() == pytest.approx([1000, 1000], rel=0.03)
    for level, found in zip((60, 40), pattern.amax(-1).tolist(), strict=True):
        assert level - 3 < found <= level + 0.1


@pytest.mark.parametrize("learnable", [False, True])
def test_lists_and_all_bins_are_one(learnable: bool) -> None:
    """Levels, and gradients of the sound and of every number; an ear that hears nothing, and loud beside faint."""
    lists, bins = (kind(learnable).double() for kind in (Moore2016, DenseMoore2016))
    lists.spectrum.max_components = None
    x = (sound(Moore2016, 4000).double() * torch.tensor([[[1.0], [1e-4]], [[30.0], [0.0]]])).requires_grad_()
    outs = lists(x), bins(x)
    assert_within(outs[1], outs[0], 1e-9)
    weights = torch.randn_like(outs[0])
    grads = [
        torch.autograd.grad(out, (x, *module.parameters()), weights)
        for out, module in zip(outs, (lists, bins), strict=True)
    ]
    for expected, actual in zip(*grads, strict=True):
        assert_close(actual.reshape(1, -1), expected.reshape(1, -1), 1e-10)


@every
@pytest.mark.parametrize("learnable", [False, True])
def test_gradients_reach_the_sound_and_every_number(kind: type, learnable: bool) -> None:
    module = kind(learnable)
    x = sound(kind, 4000).requires_grad_()
    module(x).square().mean().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@every
def test_silence(kind: type) -> None:
    module = kind(True)
    x = torch.zeros_like(sound(kind, 4000)).requires_grad_()
    y = module(x)
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@every
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(kind: type, backend: str) -> None:
    """One graph without breaks for every length, forward and backward."""
    torch._dynamo.reset()
    module = kind()
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    compiled(sound(kind, 4000).requires_grad_()).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for samples in (3000, 5003):
            x = sound(kind, samples).requires_grad_()
            y, expected = compiled(x), module(x)
            assert_close(y.detach(), expected.detach(), 1e-5)
            weights = torch.randn_like(y)
            (actual,) = torch.autograd.grad(y, x, weights)
            (wanted,) = torch.autograd.grad(expected, x, weights)
            assert_close(actual.flatten()[None], wanted.flatten()[None], 1e-3)
