"""``learnable='relative'``: what its parameters mean, and the digits that they keep."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import assert_close
from modules import CASES, Case, outputs
from torch import Tensor, nn
from torch.nn.utils import parametrize

import tamt
from tamt import DRNLFilterbank, FastDRNLFilterbank, GammatoneFilterbank

FS = 16000
RATIO = 1.05


def moved_bank(
    fc: Tensor, fs: float, n: int, dtype: torch.dtype, frequency: float = RATIO, wider: float = 0.9
) -> tuple[GammatoneFilterbank, GammatoneFilterbank]:
    """A relative bank that was moved, and one in float64 that was designed where the other has gone."""
    goal = GammatoneFilterbank(fc * frequency, fs, n, 1.2 * wider, dtype=torch.float64)
    bank = GammatoneFilterbank(fc, fs, n, 1.2, learnable="relative", dtype=dtype)
    start, end = GammatoneFilterbank(fc, fs, n, 1.2, dtype=torch.float64).design(), goal.design()
    with torch.no_grad():
        bank.log_frequency.fill_(math.log(frequency))
        bank.log_bandwidth.copy_((end["bandwidth"] / start["bandwidth"]).log())
        bank.log_gain.copy_((end["gains"] / start["gains"]).abs().log())
    return bank, goal


@pytest.mark.parametrize("n", [1, 4, 9])
def test_moved_filters_are_those_designed_there(n: int) -> None:
    bank, goal = moved_bank(torch.tensor([100.0, 700, 3000]).double(), FS, n, torch.float64)
    x = torch.randn(2, 3000, dtype=torch.float64)
    assert_close(bank(x).detach(), goal(x), 1e-10)
    assert_close(bank.analytic(x).detach(), goal.analytic(x), 1e-10, torch.complex128)
    f = torch.linspace(0, FS / 2, 99, dtype=torch.float64)
    assert_close(bank.frequency_response(f).detach(), goal.frequency_response(f), 1e-10, torch.complex128)
    for name, value in goal.design().items():
        assert_close(bank.design()[name][:, None], value[:, None], 1e-10)


@pytest.mark.parametrize("fs", [16000, 44100, 48000])
def test_float32_down_to_20_hz(fs: int) -> None:
    """Near the design and far from it: decay and frequency keep digits that a pole in float32 loses, 2e-5 here."""
    fc = torch.tensor([20.0, 50, 100, 500, 1000, 4000], dtype=torch.float64)
    x = torch.randn(2 * fs, dtype=torch.float64)
    for ratio in (1 + 1e-6, 1.05, 1.5):
        bank, goal = moved_bank(fc, fs, 4, torch.float32, frequency=ratio)
        assert_close(bank(x).detach(), goal(x), 5e-6, torch.float32)


def test_phase_turns_the_analytic_output() -> None:
    bank, x = GammatoneFilterbank([500.0], FS, learnable="relative", dtype=torch.float64), torch.randn(900).double()
    before = bank.analytic(x)
    with torch.no_grad():
        bank.phase.fill_(0.3)
    assert_close(bank.analytic(x).detach(), (before * torch.polar(torch.ones(()), torch.tensor(0.3))).detach(), 1e-7)
    assert bank.design()["phase"].item() == pytest.approx(0.3)
    assert bank.design()["gain"].item() == pytest.approx(1)


def test_an_envelope_has_no_phase() -> None:
    """Neither in its numbers nor in a gradient of rounding errors, which AdamW would make steps of."""
    bank = GammatoneFilterbank([500.0, 1000.0], FS, learnable="relative")
    x = torch.randn(2, 900)
    cochleagram = tamt.Cochleagram(bank, 90)
    before = [bank.envelope(x), cochleagram(x)]
    sum(y.sum() for y in before).backward()
    assert not bank.phase.grad.any()
    assert bank.log_gain.grad.all()
    with torch.no_grad():
        bank.phase.copy_(torch.tensor([1.0, -0.4]))
    assert all(torch.equal(a, b) for a, b in zip(before, [bank.envelope(x), cochleagram(x)], strict=True))
    torch.testing.assert_close(bank.analytic(x).abs(), before[0])


@pytest.mark.parametrize("step", [-1e4, -30.0, 30.0, 1e4])
def test_a_bandwidth_far_from_anything(step: float) -> None:
    """Between hardly any decay and a pole at 0 the filters remain filters, with finite gradients."""
    bank = GammatoneFilterbank([500.0], FS, learnable="relative")
    with torch.no_grad():
        bank.log_bandwidth.fill_(step)
    y = bank(torch.randn(500))
    y.square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in bank.parameters())
    decay = bank.design()["bandwidth"].item() * 2 * math.pi / FS
    assert decay == pytest.approx(1e-5 if step < 0 else 36, rel=1e-5)


def test_design_of_a_gammatone_bank() -> None:
    """Whatever the form: of the design, and of poles that have been moved."""
    for learnable in (False, True, "relative"):
        found = GammatoneFilterbank((100, 7000), FS, learnable=learnable, dtype=torch.float64).design()
        fc = tamt.erbspacebw(100, 7000, dtype=torch.float64)
        wanted = {
            "fc": fc,
            "erb": tamt.audfiltbw(fc),
            "bandwidth": 1.01859 * tamt.audfiltbw(fc),
            "gain": torch.ones_like(fc),
            "phase": torch.zeros_like(fc),
        }
        assert list(found) == ["poles", "gains", "fc", "bandwidth", "erb", "gain", "phase"]
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-12)
    bank = GammatoneFilterbank([500.0, 1000.0], FS, learnable=True)
    with torch.no_grad():
        bank.poles[1] *= torch.polar(torch.tensor(0.99), torch.tensor(-2 * math.pi * 50 / FS))
        bank.gains[1] *= 2j
    found = bank.design()
    assert found["fc"].tolist() == pytest.approx([500, 1050], rel=1e-5)
    decay = 2 * math.pi * 1.01859 * tamt.audfiltbw(1000) / FS
    assert found["bandwidth"][1].item() == pytest.approx((decay - math.log(0.99)) * FS / (2 * math.pi), rel=1e-5)
    centre = bank.frequency_response(found["fc"]).diagonal().abs()
    assert found["gain"].tolist() == pytest.approx(centre.tolist(), rel=5e-3)  # without the tail of the mirrored pole
    assert found["phase"].tolist() == pytest.approx([0, math.pi / 2])
    assert set(GammatoneFilterbank([500.0], FS, implementation="poly").design()) == {"a", "b"}


def test_a_filter_beyond_half_the_sampling_rate() -> None:
    """It stays there, and what is told of it is what it does, in every form; poles of either half are the same."""
    bank = GammatoneFilterbank([1000.0, 7000.0], FS, learnable="relative", dtype=torch.float64)
    with torch.no_grad():
        bank.log_frequency.fill_(0.5)
    at_most = GammatoneFilterbank([1000 * math.exp(0.5), 8000.0], FS, dtype=torch.float64)
    f = torch.linspace(1000, 8000, 701, dtype=torch.float64)
    assert bank.design()["fc"].tolist() == pytest.approx(at_most.fc.tolist())
    assert f[bank.frequency_response(f).abs().argmax(1)].tolist() == pytest.approx(at_most.fc.tolist(), abs=10)
    x = torch.randn(900, dtype=torch.float64)
    for form in (False, True):
        twin = bank.with_learnable(form)
        assert_close(twin(x).detach(), bank(x).detach(), 1e-9)
        with torch.no_grad():
            twin.poles.copy_(twin.poles.conj())
            twin.gains.copy_(twin.gains.conj() * torch.polar(torch.ones(2), torch.tensor([0.3, -1.0])))
        assert twin.design()["fc"].tolist() == pytest.approx(at_most.fc.tolist())
        again = twin.with_learnable("relative")
        assert_close(again(x).detach(), twin(x).detach(), 1e-9)
        assert_close(again.log_frequency[:1, None].detach(), bank.log_frequency[:1, None].detach(), 1e-9)
    with torch.no_grad():
        bank.log_frequency.fill_(1e4)
    bank(x).sum().backward()
    assert bank.log_frequency.grad.isfinite().all()


@pytest.mark.parametrize("case", [case for case in CASES.values() if "relative" in case.forms])
def test_quantities_cannot_be_assigned(case: Case) -> None:
    """Of the module or, of one that is made of others, of the first that learns."""
    module = next(part for part in case.make("relative").modules() if any(True for _ in part.parameters(recurse=False)))
    name = next(iter(module._quantities))
    with pytest.raises(AttributeError, match=rf"{name} of a {type(module).__name__} .* follows from its parameters "):
        setattr(module, name, getattr(module, name).detach())
    fixed = next(part for part in case.make().modules() if type(part) is type(module))
    setattr(fixed, name, 1.01 * getattr(fixed, name))


def test_a_half_precision_copy_of_a_state_of_tiny_gains_is_not_taken_for_another() -> None:
    bank, other = (GammatoneFilterbank([50.0, 500.0], 48000, learnable="relative") for _ in range(2))
    for half in (torch.float16, torch.bfloat16):
        other.load_state_dict({name: t.to(half) for name, t in bank.state_dict().items()})
    assert torch.equal(other.design_gain, bank.design_gain)
    with pytest.warns(UserWarning, match="Complex modules"):
        bank.to(torch.complex64)
    assert bank.log_gain.dtype == torch.float32


@pytest.mark.parametrize("kind", [DRNLFilterbank, FastDRNLFilterbank])
def test_drnl_is_that_of_the_multiplied_quantities(kind: type[DRNLFilterbank]) -> None:
    bank, fixed = (kind([500.0, 2000.0], FS, learnable=form) for form in ("relative", False))
    state = fixed.design()
    assert list(state) == list(fixed.state_dict())
    with torch.no_grad():
        for i, name in enumerate(kind._LEARNABLE):
            bank.get_parameter(f"log_{name}").copy_(torch.tensor([0.01, -0.02]) * (1 + i))
            state[name] *= (torch.tensor([0.01, -0.02]) * (1 + i)).double().exp()
    fixed.load_state_dict(state)
    x = 1e-3 * torch.randn(2, 2000, dtype=torch.float64)
    assert_close(bank(x).detach(), fixed(x), 1e-6 if kind is FastDRNLFilterbank else 1e-7)
    assert_close(bank.io_function([-80.0, -40.0]).detach(), fixed.io_function([-80.0, -40.0]), 1e-6)
    for name, value in bank.design().items():
        assert_close(value[:, None], state[name][:, None], 1e-7)
    assert_close(bank.CF_lin.detach()[:, None], state["CF_lin"][:, None], 1e-7)


def test_a_damaged_cochlea_stays_without_compression() -> None:
    bank = DRNLFilterbank([1000.0], FS, subject="HIx", learnable="relative")
    with torch.no_grad():
        bank.log_a.fill_(3.0)
    assert bank.a.item() == 0
    bank(torch.randn(300).double()).square().sum().backward()
    assert bank.log_a.grad.item() == 0
    assert bank.with_learnable(False).a.item() == 0


@pytest.mark.parametrize("case", [CASES["Moore2016Spectrum"], CASES["ERBIntegration"]], ids=["levels", "scalars"])
def test_levels_differ_by_decibels_and_numbers_have_an_axis(case: Case) -> None:
    module = case.make("relative")
    quantities = module.design()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.1)
    for name, value in module.design().items():
        expected = quantities[name] + 0.1 if name.startswith("threshold_") else quantities[name] * math.exp(0.1)
        assert value.shape == quantities[name].shape
        assert torch.equal(value, getattr(module, name))
        torch.testing.assert_close(value, expected)
    other = case.make(learnable=True)
    other.load_state_dict({**other.state_dict(), **module.design()})
    for a, b in zip(outputs(module, case), outputs(other, case), strict=True):
        torch.testing.assert_close(a, b)


class Bounded(nn.Module):
    def forward(self, step: Tensor) -> Tensor:
        return 0.1 * step.tanh()


def test_parametrized_steps() -> None:
    """Bounds by torch's own tool hold for what the filters do, for what is told of them, and in copies."""
    bank, x = (
        GammatoneFilterbank([500.0, 1000.0], FS, learnable="relative", dtype=torch.float64),
        torch.randn(900).double(),
    )
    parametrize.register_parametrization(bank, "log_frequency", Bounded())
    with torch.no_grad():
        bank.parametrizations.log_frequency.original.fill_(1e3)
    y = bank(x)
    y.square().sum().backward()
    assert bank.parametrizations.log_frequency.original.grad is not None
    assert bank.design()["fc"].tolist() == pytest.approx([500 * math.exp(0.1), 1000 * math.exp(0.1)])
    fixed = bank.with_learnable(False)
    assert type(fixed) is GammatoneFilterbank
    assert_close(fixed(x), y.detach(), 1e-10)
    assert torch.equal(bank(x), y)


def test_a_state_of_another_sampling_rate_is_refused() -> None:
    state = GammatoneFilterbank([500.0], 16000, learnable="relative").state_dict()
    with pytest.raises(RuntimeError, match="design_frequency belongs to a module built with other arguments"):
        GammatoneFilterbank([500.0], 8000, learnable="relative").load_state_dict(state)


def test_copies_of_the_same_form_and_of_frozen_modules() -> None:
    """Steps are copied as they are, and what is frozen stays so."""
    bank, _ = moved_bank(torch.tensor([20.0, 100.0], dtype=torch.float64), FS, 4, torch.float32)
    bank.phase.requires_grad_(False)
    twin = bank.with_learnable("relative")
    for (name, parameter), (_, other) in zip(bank.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(parameter, other)
        assert other.requires_grad == (name != "phase")
    assert all(p.requires_grad for p in bank.with_learnable(True).parameters())
    assert not any(p.requires_grad for p in bank.requires_grad_(False).with_learnable(True).parameters())
    assert all(p.requires_grad for p in bank.with_learnable(False).with_learnable(True).parameters())
    assert {"poles", "gains", "log_gain"} <= set(dir(bank))


def test_what_has_no_relative_form() -> None:
    message = "learnable must be False or True for implementation 'poly', got 'relative'; 'sos' has it"
    with pytest.raises(ValueError, match=re.escape(message)):
        GammatoneFilterbank([500.0], FS, implementation="poly", learnable="relative")
    with pytest.raises(ValueError, match=re.escape(message)):
        GammatoneFilterbank([500.0], FS, implementation="poly").with_learnable("relative")
    bank = DRNLFilterbank([500.0, 1000.0], FS)
    bank.b[1] = -2.0
    message = r"learnable='relative' needs b to be a positive multiple of its value by design, 0\.1\d+, got -2"
    with pytest.raises(ValueError, match=message):
        bank.with_learnable("relative")
    damaged = DRNLFilterbank([500.0], FS, subject="HIx")
    damaged.a[0] = 1.0
    with pytest.raises(ValueError, match="needs a to be a positive multiple of its value by design, 0, got 1"):
        damaged.with_learnable("relative")
    gammatone = GammatoneFilterbank([500.0], FS)
    gammatone.gains[0] = 0
    with pytest.raises(ValueError, match="needs the gain of a filter to be a positive multiple"):
        gammatone.with_learnable("relative")
