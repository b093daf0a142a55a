"""Both DRNL filterbanks: AMT's numbers, paths, compression, learning, streaming, module habits, errors."""

from __future__ import annotations

import copy
import math
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close

import tamt
from tamt import DRNLFilterbank, FastDRNLFilterbank
from tamt.filterbanks.drnl import FILTERS, STICK
from tamt.ops import drnl as drnl_operator
from tamt.ops import fft_drnl as fft_operator

DATA = Path(__file__).parent / "data"
GOLDEN = {name: np.load(DATA / f"{name}.npz") for name in ("drnl", "drnl_hix", "drnl_tone")}
FS = 44100
MODELS = ("paulick2024", "jepsen2008")
BOTH = (DRNLFilterbank, FastDRNLFilterbank)
both = pytest.mark.parametrize("kind", BOTH)
PARAMETERS = (*FILTERS, *STICK)
models = pytest.mark.parametrize("model", MODELS)


def bank(kind: type = DRNLFilterbank, **arguments: object) -> DRNLFilterbank:
    """Three channels at a low sampling rate, quick to compute."""
    if kind is FastDRNLFilterbank:
        arguments = {"ir_length": 100, **arguments}
    return kind([300.0, 1000, 2500], **{"fs": 8000, **arguments})


def noise(*shape: int, level: float = 1e-3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return level * torch.randn(*shape, dtype=dtype)


@models
@pytest.mark.parametrize(
    ("name", "subject"), [("drnl", "NH"), ("drnl_hix", "HIx"), ("drnl_tone", "NH"), ("drnl_tone", "HIx")]
)
def test_amt(name: str, subject: str, model: str) -> None:
    golden = GOLDEN[name]
    filters = DRNLFilterbank(golden["cf"], float(golden["fs"]), subject=subject, model=model)
    y = filters(torch.from_numpy(golden["x"])).transpose(0, 1).numpy()
    expected = golden[f"y_{subject}_{model}"]
    assert y.shape == expected.shape
    peak = np.abs(expected).max(-1)
    assert (np.abs(y - expected).max(-1) <= (1e-9 + golden[f"roundoff_{subject}_{model}"]) * peak).all()


def test_amt_parameters() -> None:
    golden = GOLDEN["drnl"]
    names = {"LP_lin_cutoff": "LP_lin", "LP_nlin_cutoff": "LP_nlin"}
    for subject in ("NH", "HIx"):
        filters = DRNLFilterbank(golden["cf"], FS, subject=subject)
        for name in PARAMETERS:
            key = f"par_{names.get(name, name)}" + (f"_{subject}" if name in "abc" else "")
            expected = np.broadcast_to(golden[key], golden["cf"].shape)
            np.testing.assert_allclose(getattr(filters, name).numpy(), expected, rtol=1e-13)


@both
@models
@pytest.mark.parametrize("level", [1e-7, 1e-4, 1e-1])
@pytest.mark.parametrize("learnable", [False, True])
def test_float32(kind: type, model: str, level: float, learnable: bool) -> None:
    fc = torch.tensor([250.0, 500, 1000, 2000, 4000, 8000])
    x = noise(FS // 2, level=level).float()
    exact = kind(fc, FS, model=model)(x)
    single = kind(fc, FS, model=model, learnable=learnable, dtype=torch.float32)(x).detach()
    # Compression makes the rounding of zeros large against the peak.
    assert_close(single, exact, 8e-5, torch.float32)


@models
def test_fast_is_drnl(model: str) -> None:
    x = noise(20000)
    expected = DRNLFilterbank((250, 8000), FS, 12, model=model)(x)
    peak = expected.abs().amax()
    errors = []
    for ir_length in (1024, 2048, 4096, 16384):
        fast = FastDRNLFilterbank((250, 8000), FS, 12, model=model, ir_length=ir_length)
        difference = (fast(x) - expected).abs() / peak
        errors.append(difference.max().item())
        if ir_length == 4096:
            assert errors[-1] < 1e-12
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[0] < 0.1
    assert errors[3] < 1e-12


def tones_and_noise(fc: float, fs: float, length: int) -> torch.Tensor:
    time = torch.arange(length, dtype=torch.float64) / fs
    tones = torch.sin(2 * math.pi * fc * torch.tensor([[1.0], [0.7]]) * time)
    return torch.cat((tones, torch.randn(2, length, dtype=torch.float64)))


@models
@pytest.mark.parametrize("subject", ["NH", "HIx"])
@pytest.mark.parametrize(
    ("fc", "fs"), [(20, 8000), (50, 16000), (50, 96000), (250, 16000), (250, 192000), (1000, 48000), (4000, 192000)]
)
def test_the_rule_for_ir_length(fc: float, fs: float, subject: str, model: str) -> None:
    """It keeps the error below what it says, and is not twice as long as it has to be."""
    exact = DRNLFilterbank([fc], fs, subject=subject, model=model)
    bandwidth = min(exact.BW_lin.item(), exact.BW_nlin.item())
    factor = {"paulick2024": 2.266, "jepsen2008": 2.635}[model]
    needed = math.ceil(factor * fs / bandwidth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = FastDRNLFilterbank([fc], fs, subject=subject, model=model, ir_length=needed)
    with pytest.warns(UserWarning, match=rf"ir_length={needed // 2} .* up to 0\.\d of the peak; ir_length=") as said:
        short = FastDRNLFilterbank([fc], fs, subject=subject, model=model, ir_length=needed // 2)
    assert said[0].filename == __file__
    named = int(re.findall(r"ir_length=(\d+)", str(said[0].message))[1])
    assert named == pytest.approx(needed, rel=1e-3, abs=1)
    for level in (1e-6, 1e-2):
        x = level * tones_and_noise(fc, fs, 3 * needed)
        y = exact(x)
        peak = y.abs().amax(-1)
        assert ((fast(x) - y).abs().amax(-1) < 3e-4 * peak).all()
        assert ((short(x) - y).abs().amax(-1) > 3e-3 * peak).any()


def test_ir_length_of_none_is_enough() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FastDRNLFilterbank((250, 8000), FS).ir_length == 4096
        assert FastDRNLFilterbank((250, 8000), FS, model="jepsen2008", ir_length=None).ir_length == 4096
        for fs, hertz in ((44100, 85.0), (96000, 235.0)):  # as the README says
            for model in MODELS:
                FastDRNLFilterbank([hertz], fs, model=model)
        low = FastDRNLFilterbank([4000.0, 50.0], 96000, ir_length=None)
    assert low.ir_length == 11514
    with pytest.warns(UserWarning, match="as large as the output; ir_length=11514 keeps"):
        bank = FastDRNLFilterbank([4000.0, 50.0], 96000, ir_length=1000, learnable="relative")
    with warnings.catch_warnings():  # of what was made of it, it has been said
        warnings.simplefilter("error")
        for twin in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank)), bank.with_learnable(False)):
            assert twin.ir_length == 1000
            twin(torch.zeros(10))


def test_ir_length_is_too_short_for_filters_that_are_loaded() -> None:
    low, fast = DRNLFilterbank([50.0], 96000), FastDRNLFilterbank([4000.0], 96000, ir_length=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast.load_state_dict(DRNLFilterbank([2000.0], 96000).state_dict())
    with pytest.warns(UserWarning, match=r"ir_length=2000 .* ir_length=11514 keeps"):
        fast.load_state_dict(low.state_dict())


@both
def test_impaired_hearing_is_linear(kind: type) -> None:
    filters = bank(kind, subject="HIx")
    one, two = noise(500), noise(500)
    assert_close(filters(one - 30 * two), filters(one) - 30 * filters(two), 1e-11)
    normal = bank(kind)
    assert (normal(30 * two) - 30 * normal(two)).abs().max() > 0.1 * normal(30 * two).abs().max()


@both
def test_compression(kind: type) -> None:
    """Slope 1 below the knee, c above it without the linear path, and that of the linear path at high levels."""
    filters = kind([500.0, 1000, 4000], FS)
    low, middle, high = torch.tensor([-190.0, -180]), torch.tensor([-90.0, -60]), torch.tensor([20.0, 30])
    slopes = (filters.io_function(low).diff() / 10).flatten()
    assert slopes.tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    assert (filters.io_function(high).diff() / 10).flatten().tolist() == pytest.approx([1, 1, 1], abs=2e-3)
    if kind is DRNLFilterbank:
        filters.g.zero_()
        slopes = (filters.io_function(middle).diff() / 30).flatten()
        assert slopes.tolist() == pytest.approx(filters.c.tolist(), abs=2e-3)
        above_knee = filters.io_function(middle[:1])[:, 0]
        knee = (filters.b / filters.a) ** (1 / (1 - filters.c))
        assert (above_knee < 20 * torch.log10(filters.a) - 90 - 10).all()
        assert (20 * torch.log10(knee) < -100).all()


def test_io_function_is_the_paths_gain() -> None:
    """Far below the knee both paths are linear, and the level is that of their summed responses."""
    filters = DRNLFilterbank([400.0, 2000], FS)
    linear, nonlinear = filters.path_responses(filters.fc)
    gain = (linear + filters.a[:, None] * nonlinear).diagonal().abs()
    output = filters.io_function([-200.0, -190])
    assert_close(output, 20 * torch.log10(gain)[:, None] + torch.tensor([-200.0, -190]), 1e-6)
    assert_close(filters.io_function([-190.0], 2000), output[1, 1:], 1e-12)
    assert_close(filters.io_function([-190.0], [2000.0, 400]), output[:, 1:].flip(0), 1e-12)


@both
def test_tone_responses(kind: type) -> None:
    """Of faint tones the gain of both paths; of a loud one at a third of the channel's frequency no third harmonic."""
    filters = kind([500.0, 2000], FS, dtype=torch.float64)
    f = torch.logspace(2.2, 3.6, 12, dtype=torch.float64)
    linear, nonlinear = filters.path_responses(f)
    gain = 20 * (linear + filters.a[:, None] * nonlinear).abs().log10()
    faint = filters.tone_responses([-220.0, -200.0], f)
    assert_close(faint, gain[:, None] + torch.tensor([[-220.0], [-200]]), 1e-6)
    assert_close(filters.tone_responses([-200.0], f, 2000), faint[1, 1:], 1e-12)
    assert_close(filters.tone_responses([-200.0], f, [2000.0, 500]), faint[:, 1:].flip(0), 1e-12)
    assert_close(filters.tone_responses([-90.0], [500.0, 400], 500)[0, 0], filters.io_function([-90.0], 500)[0], 1e-4)
    assert filters.tone_responses([], f).shape == (2, 0, 12)
    # 67 periods of a tone, of which the third harmonic is the stronger.
    tone = math.sqrt(2) * 10 ** (-100 / 20) * torch.sin(2 * math.pi * 670 * torch.arange(FS // 5).double() / FS)
    own, third = torch.fft.rfft(filters(tone)[1, FS // 10 :])[[67, 201]].abs() / (FS // 10)
    assert third > own
    assert_close(filters.tone_responses([-100.0], [670.0], 2000)[0], 20 * (math.sqrt(2) * own).log10()[None], 1e-5)


@pytest.mark.parametrize("fc", [250.0, 4000.0])
def test_a_high_tone_by_itself_is_as_exact_as_beside_low_ones(fc: float) -> None:
    """Its periods are short, and the onset and its image at fs/2 are close by."""
    filters, levels = DRNLFilterbank([fc], 44100), [-140.0, -80.0]
    for hertz in (2000.0, 13230.0, 19845.0, 21609.0):
        alone, beside = filters.tone_responses(levels, [hertz]), filters.tone_responses(levels, [25.0, hertz])
        assert (alone[..., 0] - beside[..., 1]).abs().max() < 2e-4


@both
@models
def test_path_responses_are_spectra(kind: type, model: str) -> None:
    """With ``NL(v) = v`` the response to an impulse is the sum of both paths; without it, the linear path."""
    filters = bank(kind, model=model, ir_length=2000) if kind is FastDRNLFilterbank else bank(kind, model=model)
    impulse = torch.zeros(2000, dtype=torch.float64)
    impulse[0] = 1
    f = torch.fft.rfftfreq(2000, 1 / 8000, dtype=torch.float64)
    linear, nonlinear = filters.path_responses(f)
    for tensor in (filters.a, filters.b):
        tensor.zero_()
    assert_close(torch.fft.rfft(filters(impulse)), linear, 1e-6)
    for tensor in (filters.a, filters.b, filters.c):
        tensor.fill_(1)
    assert_close(torch.fft.rfft(filters(impulse)), linear + nonlinear, 1e-6)


@models
def test_gammatones_are_0_db_at_their_centres(model: str) -> None:
    """What the low-passes take at the centre of each path is known from their cut-off."""
    filters = DRNLFilterbank([500.0, 4000], FS, model=model)
    lowpasses = {"paulick2024": (4, 1), "jepsen2008": (4, 3)}[model]
    for path, (centre, cutoff, count) in enumerate(
        zip(("CF_lin", "CF_nlin"), ("LP_lin_cutoff", "LP_nlin_cutoff"), lowpasses, strict=True)
    ):
        hertz = getattr(filters, centre)
        response = filters.path_responses(hertz)[path].diagonal().abs()
        ratio = torch.tan(math.pi * hertz / FS) / torch.tan(math.pi * getattr(filters, cutoff) / FS)
        gain = filters.g if path == 0 else 1
        assert_close(response, gain * (1 + ratio**4) ** (-0.5 * count), 1e-10)


def test_channels() -> None:
    filters = DRNLFilterbank((250, 8000), FS, learnable=True)
    assert filters.num_channels == filters.n_channels == 50
    assert sum(p.numel() for p in filters.parameters()) == 8 * 50
    assert {name for name, _ in filters.named_parameters()} == set(DRNLFilterbank._LEARNABLE)
    assert set(filters.state_dict()) == set(PARAMETERS) == set(DRNLFilterbank((250, 8000), FS).state_dict())
    assert (filters.fs, filters.subject, filters.model, filters.learnable) == (FS, "NH", "paulick2024", True)
    assert filters.dtype == torch.float64
    steps = tamt.fc2erb(filters.fc).diff()
    assert_close(steps, steps.mean().expand(49), 1e-9)
    assert filters.fc[[0, -1]].tolist() == [250, 8000]
    # Of a list the default says nothing, in its place before other arguments.
    assert DRNLFilterbank([500.0, 1000.0], FS, 50, "HIx").subject == "HIx"
    assert DRNLFilterbank((250, 8000), FS, n_channels=1).fc.tolist() == [250]
    assert DRNLFilterbank([250.0, 300], FS).num_channels == 2
    fast = FastDRNLFilterbank((250, 8000), FS, learnable=True)
    assert {name for name, _ in fast.named_parameters()} == {"a", "b", "c"}
    assert sum(p.numel() for p in fast.parameters()) == 150
    assert set(fast.state_dict()) == set(PARAMETERS)
    assert fast.ir_length == 4096


def scaled(filters: DRNLFilterbank, x: torch.Tensor, factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Output with every parameter times a factor, so that parameters of all sizes are differentiated alike."""
    named = {name: p.detach() * f for (name, p), f in zip(filters.named_parameters(), factors, strict=True)}
    return torch.func.functional_call(filters, named, (x,))


@both
@pytest.mark.parametrize("model", MODELS[1:])
def test_gradcheck(kind: type, model: str) -> None:
    """To the signal and all parameters, on both sides of the knee; the signal in units of its level."""
    arguments = {"ir_length": 20} if kind is FastDRNLFilterbank else {}
    filters = kind([1000.0, 2500], 8000, model=model, learnable=True, **arguments)
    level = 3e-6
    factors = [torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in filters.parameters()]
    x = torch.randn(2, 70, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
        return 1e3 * scaled(filters, level * x, factors)

    y = function(x, *factors).detach()
    assert y.abs().amax() > 0.1
    assert torch.autograd.gradcheck(function, (x, *factors), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, *factors), fast_mode=True)


@both
def test_every_parameter_against_finite_differences(kind: type) -> None:
    filters = bank(kind, learnable=True)
    x = noise(300) * torch.logspace(-4, 0, 300, dtype=torch.float64)  # from below the knee to above it
    weights = torch.randn(3, 300, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (filters(x) * weights).sum()

    loss().backward()
    for name, parameter in filters.named_parameters():
        for channel in range(3):
            ends = []
            for factor in (1 + 1e-6, 1 - 1e-6):
                with torch.no_grad():
                    before = parameter[channel].clone()
                    parameter[channel] *= factor
                    ends.append(loss().item())
                    step = before * 2e-6
                    parameter[channel] = before
            slope = (ends[0] - ends[1]) / step.item()
            assert slope != 0, name
            assert parameter.grad[channel].item() == pytest.approx(slope, rel=1e-3), name


@both
@pytest.mark.parametrize("subject", ["NH", "HIx"])
def test_silence(kind: type, subject: str) -> None:
    filters = bank(kind, learnable=True, subject=subject)
    x = torch.zeros(2, 300, dtype=torch.float64, requires_grad=True)
    y = filters(x)
    assert torch.equal(y, torch.zeros(2, 3, 300))
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in filters.parameters())
    # At rest the filterbank is linear with the slope a of the broken stick.
    faint = torch.randn(2, 300, dtype=torch.float64)
    assert (x.grad * faint).sum().item() == pytest.approx((filters(1e-12 * faint).sum() / 1e-12).item(), rel=1e-6)


def test_learning_recovers_shifted_filters() -> None:
    """CF_nlin and BW_lin pulled off their place find back from the output alone."""
    target = bank()
    filters = bank(learnable=True)
    learnt = [filters.CF_nlin, filters.BW_lin]
    x = torch.cat((noise(2, 1000, level=1e-5), noise(2, 1000, level=1e-2)))
    wanted = target(x)
    scale = [torch.full((3,), value, dtype=torch.float64, requires_grad=True) for value in (1.05, 0.85)]
    optimiser = torch.optim.LBFGS(scale, max_iter=60, line_search_fn="strong_wolfe")
    start = [p.detach().clone() for p in learnt]

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        named = {"CF_nlin": start[0] * scale[0], "BW_lin": start[1] * scale[1]}
        y = torch.func.functional_call(filters, named, (x,))
        error = (y - wanted).square().sum(-1) / wanted.square().sum(-1)
        error.sum().backward()
        return error.sum()

    before = loss().item()
    optimiser.step(loss)
    assert before > 1e-2
    assert loss().item() < 1e-6 * before
    assert all((s.detach() - 1).abs().max() < 1e-3 for s in scale)


def test_optimiser_step_moves_the_filter() -> None:
    filters = bank(learnable=True)
    f = torch.linspace(100, 3900, 400, dtype=torch.float64)
    peak = f[filters.path_responses(f)[1].abs().argmax(1)]
    optimiser = torch.optim.SGD([filters.CF_nlin], lr=1.0)
    x = noise(500)
    y = filters(x).detach()
    (filters.CF_nlin * torch.tensor([-100.0, -200, -300])).sum().backward()
    optimiser.step()
    moved = f[filters.path_responses(f)[1].abs().argmax(1)]
    assert ((moved - peak) > torch.tensor([50, 100, 150])).all()
    assert (filters(x) - y).abs().max() > 0.01 * y.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_learnt_bandwidth_below_zero(dtype: torch.dtype) -> None:
    filters = bank(learnable=True, dtype=dtype)
    with torch.no_grad():
        filters.BW_nlin.mul_(-1)
        filters.BW_lin[0] = 0
    x = noise(500, dtype=dtype).requires_grad_()
    y = filters(x)
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in filters.parameters())
    assert torch.isfinite(x.grad).all()


def test_fast_takes_over_what_drnl_has_learnt() -> None:
    learnt, x = bank(learnable=True), noise(300)
    with torch.no_grad():
        learnt.CF_nlin.mul_(1.1)
        learnt.BW_lin.mul_(0.8)
    fast = bank(FastDRNLFilterbank, ir_length=1000)
    assert (fast(x) - learnt(x)).abs().max() > 0.01 * learnt(x).abs().max()
    fast.load_state_dict(learnt.state_dict())
    assert_close(fast(x), learnt(x).detach(), 1e-6)


def test_fixed_filters_follow_their_tensors() -> None:
    """What is kept between calls gives way to edits in place and to loading."""
    filters, x = bank(), noise(300)
    filters.a.zero_()
    first = filters(x)
    filters.g.mul_(2)
    assert_close(filters(x), 2 * first, 1e-12)
    other = bank()
    other(x)
    other.load_state_dict(filters.state_dict())
    assert torch.equal(other(x), filters(x))
    frozen = bank(learnable=True).requires_grad_(False)
    before = frozen(x)
    with torch.no_grad():
        frozen.CF_lin.mul_(1.01)
    assert not torch.equal(frozen(x), before)
    assert frozen.float()(x).dtype == torch.float32


@both
def test_one_operator(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference serves the CPU, and a forward pass is one call of it."""
    calls = []
    operator = drnl_operator if kind is DRNLFilterbank else fft_operator
    name = "plan" if kind is DRNLFilterbank else "broken_stick_"
    module = operator.reference
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: calls.append(a) or original(*a))
    bank(kind)(noise(100))
    assert len(calls) == (3 if kind is DRNLFilterbank else 1)


@both
def test_shapes_of_states(kind: type) -> None:
    shapes = {DRNLFilterbank: [(2, 3, 12), (2, 3, 4), (2, 3, 6)], FastDRNLFilterbank: [(2, 99), (2, 3, 99)]}[kind]
    assert [s.shape for s in bank(kind).stream(noise(2, 90))[1]] == shapes


def test_repr() -> None:
    assert repr(bank()) == (
        "DRNLFilterbank(3 channels 300.0 ... 2500.0 Hz, fs=8000, subject='NH', model='paulick2024', learnable=False, "
        "dtype=torch.float64)"
    )
    assert repr(bank(FastDRNLFilterbank)) == (
        "FastDRNLFilterbank(3 channels 300.0 ... 2500.0 Hz, fs=8000, subject='NH', model='paulick2024', "
        "learnable=False, dtype=torch.float64, ir_length=100)"
    )


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fs": 0}, "fs must be a positive number of Hz, got 0"),
        ({"fc": [0.0, 100]}, "fc must lie in (0, fs/2] = (0, 22050] Hz, got 0"),
        ({"fc": [100.0, 22051]}, "fc must lie in (0, fs/2] = (0, 22050] Hz, got 22051"),
        ({"fc": [math.nan]}, "fc must lie in (0, fs/2] = (0, 22050] Hz, got nan"),
        ({"fc": (-1, 8000)}, "fc must lie in (0, fs/2] = (0, 22050] Hz, got -1"),
        ({"fc": (100, 22051)}, "fc must lie in (0, fs/2] = (0, 22050] Hz, got 22051"),
        ({"fc": []}, "fc must hold at least one frequency and have shape (F,), got (0,)"),
        ({"fc": (1.0, 2.0, 3.0)}, "fc as a tuple must be (flow, fhigh), got (1.0, 2.0, 3.0)"),
        ({"fc": (1000, 100)}, "fhigh"),
        (
            {"fc": [1000.0, 22000]},
            "fc must keep the paths' centre frequencies below fs/2 = 22050 Hz, got 22000 Hz with CF_lin at 22269.6 Hz",
        ),
        ({"n_channels": 0}, "n_channels must be an integer of at least 1, got 0"),
        *(
            (
                {"fc": kind([250.0, 7000]), "n_channels": 40},
                f"must not be given with a list of frequencies, got n_channels=40 and fc of type {name}; a range is a "
                "tuple, (250, 7000)",
            )
            for kind, name in ((list, "list"), (torch.tensor, "Tensor"))
        ),
        ({"fc": [500, 1000, 2000], "n_channels": 3}, "got n_channels=3 and fc of type list"),
        ({"n_channels": 2.5}, "n_channels must be an integer of at least 1, got 2.5"),
        ({"subject": "HI"}, "subject must be one of ('NH', 'HIx'), got 'HI'"),
        ({"model": "drnl"}, "model must be one of ('paulick2024', 'jepsen2008'), got 'drnl'"),
    ],
)
def test_value_errors(kind: type, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**{"fc": [100.0], "fs": FS, **arguments})


@pytest.mark.parametrize("ir_length", [0, -1, 2.5, True])
def test_ir_length_errors(ir_length: object) -> None:
    with pytest.raises(ValueError, match=f"ir_length must be an integer of at least 1, got {ir_length}"):
        FastDRNLFilterbank([100.0], FS, ir_length=ir_length)


@pytest.mark.parametrize("ir_length", [1, 2, 300])
def test_ir_length_and_signals_of_any_length(ir_length: int) -> None:
    """Also impulse responses longer than the signal."""
    x = noise(100)
    y = bank(FastDRNLFilterbank, ir_length=ir_length)(x)
    if ir_length == 300:
        assert_close(y, bank()(x), 1e-10)
    assert torch.isfinite(y).all()


@both
def test_errors_of_calls(kind: type) -> None:
    with pytest.raises(ValueError, match=re.escape("the signal must have shape (..., T), got ()")):
        bank(kind)(torch.tensor(1.0))
    with pytest.raises(ValueError, match=re.escape("f must have shape (K,), got (1, 2)")):
        bank(kind).path_responses([[1.0, 2.0]])
    with pytest.raises(ValueError, match=re.escape("levels must have shape (L,), got ()")):
        bank(kind).io_function(60.0)
    with pytest.raises(ValueError, match=re.escape("fc must be a number or have shape (K,), got (1, 1)")):
        bank(kind).io_function([60.0], [[1000.0]])
    with pytest.raises(ValueError, match="fc must be the frequency of a channel, got 990 Hz; the nearest is 1000 Hz"):
        bank(kind).io_function([60.0], 990)
    with pytest.raises(ValueError, match="fc must hold at least one frequency"):
        bank(kind).io_function([60.0], [])
    for f, problem in (([0.0], "got 0"), ([500.0, 4000], "got 4000"), ([math.nan], "got nan")):
        with pytest.raises(ValueError, match=re.escape("f must lie in (0, fs/2) = (0, 4000) Hz, ") + problem):
            bank(kind).tone_responses([-60.0], f)
    with pytest.raises(ValueError, match="f must hold at least one frequency"):
        bank(kind).tone_responses([-60.0], [])
    with pytest.raises(ValueError, match=re.escape("f must have shape (K,), got ()")):
        bank(kind).tone_responses([-60.0], 500.0)
