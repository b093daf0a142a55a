"""Cochleagrams: frames against AMT's filters and against tones, compression, streams, what a bank makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Steps, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tamt
from tamt.shared import hops

GOLDEN = np.load(Path(__file__).parent / "data" / "gammatone.npz")
FS = 16000


def gammatone(**options: Any) -> tamt.GammatoneFilterbank:
    return tamt.GammatoneFilterbank([300.0, 1000.0, 3000.0], FS, dtype=torch.float64, **options)


BANKS: dict[str, Callable[..., nn.Module]] = {
    "sos": gammatone,
    "poly": lambda **options: gammatone(implementation="poly", **options),
    "drnl": lambda **options: tamt.DRNLFilterbank([300.0, 1000.0, 3000.0], FS, **options),
    "fast_drnl": lambda **options: tamt.FastDRNLFilterbank([300.0, 1000.0], FS, ir_length=300, **options),
}
WAYS = [(name, detector) for name, make in BANKS.items() for detector in make().DETECTORS]

ways = pytest.mark.parametrize(("name", "detector"), WAYS)


def noise(*shape: int) -> Tensor:
    return 1e-3 * torch.randn(shape, dtype=torch.float64)


def framed(bank: Any, x: Tensor, hop: int, frame: int, detector: str) -> Tensor:
    """Frame by frame, from the whole output."""
    if detector == "envelope":
        values = bank.analytic(x).abs().square() / 2
    else:
        values = bank(x).square() if detector == "power" else bank(x).clamp(min=0)
    starts = range(0, x.shape[-1] - frame + 1, hop)
    return torch.stack([values[..., t : t + frame].mean(-1) for t in starts], -1) if starts else values[..., :0]


@ways
@pytest.mark.parametrize(
    ("hop", "frame"), [(160, 160), (160, 480), (7, 21), (441, 441), (1, 3), (900, 900), (600, 1200)]
)
def test_frames(name: str, detector: str, hop: int, frame: int) -> None:
    bank, x = BANKS[name](learnable=True), noise(2, 1000).requires_grad_()
    found = tamt.Cochleagram(bank, hop, frame, detector)(x)
    expected = framed(bank, x, hop, frame, detector)
    assert_close(found, expected, 1e-9)
    if not expected.numel():
        return
    inputs, weight = [x, *bank.parameters()], torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, weight, allow_unused=True)
    for actual, of in zip(torch.autograd.grad(found, inputs, weight, allow_unused=True), wanted, strict=True):
        assert_close(*(torch.view_as_real(g).flatten() if g.is_complex() else g for g in (actual, of)), 1e-8)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_frames_of_amt(n: int) -> None:
    """Mean squares of what AMT's filters put out."""
    bank = tamt.GammatoneFilterbank(GOLDEN["fc"], float(GOLDEN["fs"]), n, dtype=torch.float64)
    found = tamt.Cochleagram(bank, 100, detector="power")(torch.from_numpy(GOLDEN["x_noise"]))
    output = torch.from_numpy(GOLDEN[f"n{n}_y_noise"])
    assert_close(found, output.square().unflatten(1, (-1, 100)).mean(2), 1e-10)


@pytest.mark.parametrize("implementation", ["sos", "poly"])
def test_analytic_output(implementation: str) -> None:
    """Its real part is the output, and it is one of negative frequencies, as its poles are."""
    bank = gammatone(implementation=implementation, learnable=True)
    x = noise(2, 3, 800).requires_grad_()
    z = bank.analytic(x)
    assert z.shape == (2, 3, 3, 800)
    assert z.dtype == torch.complex128
    assert_close(z.real, bank(x), 1e-12)
    assert torch.equal(bank.envelope(x), z.abs())
    spectrum = torch.fft.fft(z[0, 0], 8192).abs()
    positive, negative = spectrum[:, 1:4096].square().sum(1), spectrum[:, 4097:].square().sum(1)
    assert (positive < 1e-2 * negative).all()
    grads = torch.autograd.grad(bank.envelope(torch.zeros(1, 9, dtype=torch.float64)).sum(), list(bank.parameters()))
    assert all(torch.view_as_real(g).isfinite().all() for g in grads)


def test_envelope_of_a_tone() -> None:
    """Its mean is the mean square of the tone, and in every frame the same; the power has a ripple at 2 fc."""
    bank = tamt.GammatoneFilterbank([500.0, 1000.0, 3000.0], FS, dtype=torch.float64)
    time = torch.arange(FS, dtype=torch.float64) / FS
    for channel, fc in enumerate(bank.fc.tolist()):
        tone = 0.3 * torch.sin(2 * math.pi * fc * time)
        envelope = tamt.Cochleagram(bank, 20)(tone)[channel, FS // 40 :]
        power = tamt.Cochleagram(bank, 20, detector="power")(tone)[channel, FS // 40 :]
        assert_close(envelope, torch.full_like(envelope, 0.3**2 / 2), 2e-3)
        assert envelope.std() < 1e-3 * envelope.mean()
        assert_close(power.mean(), envelope.mean(), 1e-2)
    assert_close(bank.envelope(tone)[2, FS // 2 :], torch.full((FS // 2,), 0.3, dtype=torch.float64), 1e-3)


@pytest.mark.parametrize("detector", ["envelope", "power", "halfwave"])
def test_compression(detector: str) -> None:
    bank, x = gammatone(learnable=True), noise(2, 700)
    x[1] = 0

    def frames(compression: str | float | None, floor: float = 1e-10) -> Tensor:
        return tamt.Cochleagram(bank, 100, detector=detector, compression=compression, floor=floor)(x)

    means, floor = frames(None).detach(), 1e-9
    decades = 20 if detector == "halfwave" else 10
    floored = torch.maximum(means, torch.tensor(floor, dtype=torch.float64))
    assert (floored[0] > means[0]).any() or detector == "halfwave"
    assert tamt.Cochleagram(bank, 100, compression=np.float32(0.5)).compression == 0.5
    expected = {"db": decades * floored.log10(), "log": floored.log(), 0.3: (means + floor) ** 0.3}
    for compression, wanted in expected.items():
        found = frames(compression, floor)
        assert_close(found.detach(), wanted, 1e-12)
        grads = torch.autograd.grad(found.sum(), list(bank.parameters()))
        assert all(torch.view_as_real(g).isfinite().all() for g in grads)
        assert all(torch.view_as_real(g).any() for g in grads)


@settings(max_examples=25)
@given(
    st.sampled_from(WAYS), st.integers(1, 90), st.integers(1, 4), st.lists(st.integers(0, 200), min_size=1, max_size=6)
)
def test_chunks_change_nothing(way: tuple[str, str], hop: int, per_frame: int, sizes: list[int]) -> None:
    name, detector = way
    cochleagram = tamt.Cochleagram(BANKS[name](), hop, per_frame * hop, detector, 0.3)
    x = noise(2, sum(sizes))
    parts, state = [], None
    for chunk in x.split(sizes, 1):
        frames, state = cochleagram.stream(chunk, state)
        parts.append(frames)
        assert len(state) == cochleagram.bank._STATES + 2
    assert_close(torch.cat(parts, -1), cochleagram(x), 1e-9)


def test_a_state_is_memory_of_its_own() -> None:
    cochleagram = tamt.Cochleagram(gammatone(), 10, 30)
    x = noise(57)
    frames, state = cochleagram.stream(x)
    kept = [t.clone() for t in state]
    x.fill_(math.nan)
    frames.fill_(math.nan)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))
    assert sum(t.untyped_storage().nbytes() for t in state) == sum(t.nbytes for t in state)


def test_attributes() -> None:
    cochleagram = tamt.Cochleagram(gammatone(learnable=True), 160, 480, compression="db")
    assert cochleagram.frame_rate == 100
    assert cochleagram.fc is cochleagram.bank.fc
    times = cochleagram.times(3)
    assert times.dtype == torch.float64
    assert times.tolist() == pytest.approx([0.015, 0.025, 0.035])
    assert cochleagram.times(0).shape == (0,)
    assert list(dict(cochleagram.named_parameters())) == ["bank.poles", "bank.gains"]
    shown = "hop_length=160, frame_length=480, detector='envelope', compression='db', floor=1e-10"
    assert shown in repr(cochleagram)


def test_shapes() -> None:
    cochleagram = tamt.Cochleagram(gammatone(), 160, 320)
    assert cochleagram(noise(2, 3, 1000)).shape == (2, 3, 3, 5)
    assert cochleagram(noise(1000)).shape == (3, 5)
    for length in (0, 1, 160, 319):
        assert cochleagram(noise(2, length)).shape == (2, 3, 0)
    assert cochleagram(noise(2, 320)).shape == (2, 3, 1)
    assert cochleagram(noise(0, 1000)).shape == (0, 3, 5)


def test_learning_through_it() -> None:
    """A few steps bring a shifted filter back to the frames of the one it was."""
    x = torch.randn(2, 1600)
    bank = tamt.GammatoneFilterbank([300.0, 1000.0, 3000.0], FS, learnable=True)
    cochleagram = tamt.Cochleagram(bank, 160, compression="db")
    wanted = cochleagram(x).detach()
    with torch.no_grad():
        bank.poles *= torch.polar(torch.tensor(0.99), torch.tensor(0.004))
    optimiser = torch.optim.Adam([bank.poles], lr=3e-4)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = (cochleagram(x) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("per_frame", [2, 25])
def test_memory_of_frames_that_overlap(per_frame: int) -> None:
    """Neither pass makes a tensor of all frames' hops."""
    cochleagram = tamt.Cochleagram(gammatone(learnable=True), 16, 16 * per_frame)
    with Steps() as steps:
        frames = cochleagram(noise(1, 64_000))
        torch.autograd.grad(frames.sum(), list(cochleagram.parameters()))
    assert frames.nbytes * per_frame not in {t.untyped_storage().nbytes() for t in steps.made}


@ways
def test_memory_is_bounded(name: str, detector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd keeps no tensor of the output's size from the forward pass."""
    bank, kept = BANKS[name](learnable=True), []
    x = noise(2, 20_000)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        tamt.Cochleagram(bank, 160, 320, detector, 0.3)(x)
    assert sum(kept) < 0.5 * 8 * 2 * len(bank.fc) * 20_000 + 4 * 300 * 8 * 2**14
    assert max(kept) <= max(x.nbytes, 3 * len(bank.fc) * 1025 * 8 * 2)
    assert hops.CHUNK * 8 * 4 <= 64 << 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_length": 0}, "hop_length must be an integer of at least 1, got 0"),
        ({"hop_length": 2.5}, "hop_length must be an integer of at least 1, got 2.5"),
        ({"frame_length": 0}, "frame_length must be an integer of at least 1, got 0"),
        ({"frame_length": 240}, "frame_length must be a multiple of hop_length = 160, got 240"),
        ({"frame_length": 80}, "frame_length must be a multiple of hop_length = 160, got 80"),
        ({"detector": "rms"}, "detector must be one of ('envelope', 'power', 'halfwave') for a GammatoneFilterbank"),
        ({"compression": "dB"}, "compression must be None, 'db', 'log' or a number in (0, 1), got 'dB'"),
        ({"compression": 1.0}, "compression must be None, 'db', 'log' or a number in (0, 1), got 1.0"),
        ({"compression": 0}, "compression must be None, 'db', 'log' or a number in (0, 1), got 0"),
        ({"compression": math.nan}, "compression must be None, 'db', 'log' or a number in (0, 1), got nan"),
        ({"compression": True}, "compression must be None, 'db', 'log' or a number in (0, 1), got True"),
        ({"floor": 0.0}, "floor must be a number from 1.17549e-38 to 3.40282e+38, got 0.0"),
        ({"floor": -1e-3}, "floor must be a number from 1.17549e-38 to 3.40282e+38, got -0.001"),
        ({"floor": 1e39}, "floor must be a number from 1.17549e-38 to 3.40282e+38, got 1e+39"),
        ({"floor": math.nan}, "floor must be a number from 1.17549e-38 to 3.40282e+38, got nan"),
        ({"floor": "low"}, "floor must be a number from 1.17549e-38 to 3.40282e+38, got 'low'"),
        ({"hop_length": math.inf}, "hop_length must be an integer of at least 1, got inf"),
        ({"hop_length": "160"}, "hop_length must be an integer of at least 1, got '160'"),
        ({"hop_length": None}, "hop_length must be an integer of at least 1, got None"),
        ({"hop_length": 1 << 70}, "hop_length must be an integer of at least 1, got 1180591620717411303424"),
        ({"compression": np.ones(2)}, "compression must be None, 'db', 'log' or a number in (0, 1), got array"),
    ],
)
def test_value_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tamt.Cochleagram(gammatone(), **{"hop_length": 160, **options})


@pytest.mark.parametrize("name", ["drnl", "fast_drnl"])
def test_no_envelope_of_a_nonlinear_filter(name: str) -> None:
    with pytest.raises(ValueError, match=r"detector must be one of \('power', 'halfwave'\) for a \w+, got 'envelope'"):
        tamt.Cochleagram(BANKS[name](), 160)


def test_errors_of_a_call() -> None:
    with pytest.raises(TypeError, match="bank must be a GammatoneFilterbank, DRNLFilterbank or FastDRNLFilterbank"):
        tamt.Cochleagram(nn.Identity(), 160)  # type: ignore[arg-type]
    cochleagram = tamt.Cochleagram(gammatone(), 10, 30)
    with pytest.raises(TypeError, match=r"the signal must be of a floating type, got torch\.int64"):
        cochleagram(torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"the signal must have shape \(..., T\), got \(\)"):
        cochleagram(torch.zeros(()))
    _, state = cochleagram.stream(noise(2, 45))
    with pytest.raises(TypeError, match="state must be a tuple of 3 tensors, as stream returns it, got tuple of 1"):
        cochleagram.stream(noise(2, 9), state[:1])
    with pytest.raises(ValueError, match=r"state\[2\] must have shape \(3, 0..9\) for a signal \(3, 9\), got \(2, 5\)"):
        cochleagram.stream(noise(3, 9), (state[0], noise(3, 3, 1), state[2]))
    with pytest.raises(ValueError, match=r"state\[1\] must have shape \(2, 3, 0..2\).*, got \(2, 1, 2\)"):
        cochleagram.stream(noise(2, 9), (state[0], state[1][:, :1], state[2]))
    with pytest.raises(TypeError, match=r"state\[1\] must have the signal's type and device, torch.float64 on cpu"):
        cochleagram.stream(noise(2, 9), (state[0], state[1].float(), state[2]))
    with pytest.raises(TypeError, match=r"state\[0\] must be a torch.Tensor, got NoneType"):
        cochleagram.stream(noise(2, 9), (None, *state[1:]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames must be an integer of at least 0, got -1"):
        cochleagram.times(-1)
    with pytest.raises(ValueError, match=r"frames must be an integer of at least 0, got 2\.5"):
        cochleagram.times(2.5)  # type: ignore[arg-type]
