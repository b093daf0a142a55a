"""Loudness against AMT and the printed anchors, in frames and as a stream; levels; what is given wrongly."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_within
from torch import Tensor, nn

import tamt
from tamt.loudness.level import GROWTH, PER_PHON
from tamt.spl import full_scale_pascal

FS = 32000
DATA = Path(__file__).parent / "data"
CASES = ("tone40", "tone60", "tone60_left", "twotone", "harm", "noise", "click", "am", "silence", "loud", "weak")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
MODELS = {
    "moore2016": lambda **options: tamt.Moore2016Loudness(**options),
    "glasberg2002": lambda **options: tamt.Glasberg2002Loudness(**options),
    "documents": lambda **options: tamt.Glasberg2002Loudness("documents", **options),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@pytest.fixture(scope="module")
def amt() -> Any:
    return np.load(DATA / "moore2016_loudness.npz")


@pytest.fixture(scope="module")
def published() -> Any:
    return np.load(DATA / "glasberg2002_loudness.npz")


def tone(level: float, frequency: float = 1000.0, seconds: float = 0.25) -> Tensor:
    """In pascal, float64."""
    time = torch.arange(round(seconds * FS), dtype=torch.float64) / FS
    return full_scale_pascal(level) * torch.sin(2 * math.pi * frequency * time)


def sound(data: Any, case: str) -> Tensor:
    """Of a stored case, in pascal: (1 or 2, T), float64."""
    return full_scale_pascal(float(data["db_max"])) * torch.from_numpy(data[f"{case}_x"]).double()


def ears(data: Any, case: str, name: str) -> np.ndarray:
    """Stored numbers of one ear or two."""
    return np.stack([data[f"{case}_{name}_{ear}"] for ear in "LR" if f"{case}_{name}_{ear}" in data])


def assert_loudness(actual: Tensor, expected: np.ndarray) -> None:
    """1e-9 of the largest in float64; in float32 2e-4, and below 0.01 sone 2e-3 of that."""
    wanted = torch.from_numpy(np.asarray(expected, dtype=np.float64))
    single = torch.where(wanted < 0.01, 2e-5, 2e-4 * wanted)
    assert actual.shape == wanted.shape
    assert_within(actual.detach(), wanted, single if actual.dtype == torch.float32 else 1e-9 * wanted.max())


@dtypes
@pytest.mark.parametrize("case", CASES)
def test_moore2016_against_amt(amt: Any, case: str, dtype: torch.dtype) -> None:
    """Instantaneous and short-term specific loudness, inhibition, loudness of ears and of both, for both versions."""
    x, frames = sound(amt, case).to(dtype), amt[f"{case}_frames"]
    for version, suffix in (("2018", ""), ("2016", "2016")):
        model = tamt.Moore2016Loudness(version=version, dtype=dtype)
        loudness = model(x)
        short, long = ears(amt, case, f"STL{suffix}"), ears(amt, case, f"LTL{suffix}")
        assert_loudness(loudness.short_term_ears, short)
        assert_loudness(loudness.long_term_ears, long)
        both = 2 / len(short)
        assert_loudness(loudness.short_term, both * short.sum(0))
        assert_loudness(loudness.long_term, both * long.sum(0))
        assert_loudness(loudness.peak, amt[f"{case}_peak"][3 if suffix else 1])
        if version == "2018":
            assert_loudness(loudness.specific[:, frames], ears(amt, case, "N"))
            smooth = model.short_term(loudness.specific)
            assert_loudness(smooth[:, frames], ears(amt, case, "S"))
            if f"{case}_inh_L" in amt:
                assert_loudness(model.inhibition.factors(smooth)[:, frames], ears(amt, case, "inh"))


@dtypes
def test_stages_against_amt(amt: Any, dtype: torch.dtype) -> None:
    """Specific loudness of the same excitation in all channels, -30 ... 130 dB; inhibition of spectra of its own."""
    fc = torch.from_numpy(amt["stage_fc"])
    level = torch.from_numpy(amt["stage_spec_E_dB"])[:, None].expand(-1, len(fc))
    specific = tamt.Moore2016SpecificLoudness(fc, dtype=dtype)(10 ** (level / 10))
    # AMT subtracts two powers that hardly differ, and keeps nine digits of what is 30 dB below threshold.
    assert_loudness(specific[level[:, 0] > -20], amt["stage_spec_N"][level[:, 0] > -20])
    both = torch.stack([torch.from_numpy(amt[f"stage_inh_in_{ear}"]) for ear in "LR"])
    left, right = 0.25 * tamt.BinauralInhibition(dtype=dtype)(both).sum(-1)
    assert_loudness(torch.stack((left + right, left, right), -1), amt["stage_inh_out"])


@dtypes
@pytest.mark.parametrize("case", ["tone60", "twotone", "am", "loud", "weak"])
def test_glasberg2002(published: Any, amt: Any, case: str, dtype: torch.dtype) -> None:
    """The numbers of an independent program; its sounds are the left ears of the other model's."""
    loudness = tamt.Glasberg2002Loudness(dtype=dtype)(sound(amt, case)[0])
    assert_loudness(loudness.short_term, published[f"{case}_STL"])
    assert_loudness(loudness.long_term, published[f"{case}_LTL"])
    assert_loudness(loudness.peak, published[f"{case}_LTL"].max())
    # Right after a loud sound, what is left of the ear's response has in float32 the rounding of the loud sound.
    for found, name in ((loudness.instantaneous, "inst"), (loudness.specific[published[f"{case}_frames"]], "N")):
        expected = torch.from_numpy(published[f"{case}_{name}"])
        assert_within(found, expected, (2e-4 if dtype == torch.float32 else 1e-9) * expected.max().item())


def test_glasberg2002_with_the_threshold_of_both_ears(published: Any, amt: Any) -> None:
    """Cases with two ears, whose components that program took from the stronger ear."""
    model = tamt.Glasberg2002Loudness(dtype=torch.float64)
    model.front.spectrum.joint_threshold = True
    for case in ("harm", "noise", "click"):
        padded = nn.functional.pad(sound(amt, case), (3072, 3072))[None]
        specific = model._specific(padded)[0, 0]
        assert_loudness(0.5 * specific.sum(-1), published[f"{case}_inst"])


@dtypes
def test_glasberg2002_specific_loudness(published: Any, dtype: torch.dtype) -> None:
    """AMT's own statements, which have the constant of the standard."""
    fc = torch.from_numpy(published["fc"])
    level = torch.from_numpy(published["spec_E_dB"])[:, None].expand(-1, len(fc))
    stage = tamt.Glasberg2002SpecificLoudness(fc, dtype=dtype)
    found = stage(10 ** (level / 10)) * (float(published["C_ansi"]) / stage.C)
    some = (level[:, 0] > -20) & (level[:, 0] != 100)  # where the law is another, by 3 %
    assert_loudness(found[some], published["spec_N_ansi"][some])


ANCHORS = {0: "0.000535", 10: "0.02506", 20: "0.1366", 40: "0.99848", 60: "4.1075", 80: "15.241", 120: "305.20"}


@pytest.mark.parametrize(("level", "sone"), ANCHORS.items(), ids=map(str, ANCHORS))
def test_growth_of_a_tone(level: float, sone: str) -> None:
    """Steady loudness of 1 kHz in both ears, to the printed digits; in one ear two thirds of it."""
    one = tone(level)
    model = tamt.Moore2016Loudness(dtype=torch.float64, hop=32)
    both, left = (
        0.25 * model.inhibition(model(torch.stack(pair)).specific)[:, 4].sum().item()
        for pair in ((one, one), (one, 0 * one))
    )
    assert f"{both:.{len(sone) - 2 - (level > 100) * 2 - (10 < both < 100)}f}" == sone
    assert both / left == pytest.approx(1.5, abs=1e-4)


def test_peak_of_short_tones() -> None:
    """40 dB for 0.4 s and 60 dB for 0.25 s, which begin and end within 20 ms."""
    model = tamt.Moore2016Loudness(dtype=torch.float64)
    ramp = torch.sin(torch.linspace(0, math.pi / 2, 640, dtype=torch.float64)) ** 2
    for level, seconds, peak in ((40, 0.4, "0.9698"), (60, 0.25, "3.6103")):
        x = tone(level, seconds=seconds)
        x[:640] *= ramp
        x[-640:] *= ramp.flip(0)
        assert f"{model(nn.functional.pad(x, (0, 3200))).peak:.4f}" == peak


@pytest.mark.parametrize("name", GROWTH)
def test_the_curves_of_loudness_level_are_the_models_own(name: str) -> None:
    level = torch.arange(0, 120.25, 1 / PER_PHON, dtype=torch.float64)
    one = full_scale_pascal(level)[:, None, None] * tone(0, seconds=6144 / FS) / full_scale_pascal(0.0)
    model = MODELS[name](dtype=torch.float64)
    specific = model._specific(one)
    found = 0.5 * (model.inhibition(specific) if name == "moore2016" else specific).sum(-1)[:, 0, 0]
    assert_within(found / torch.tensor(GROWTH[name], dtype=torch.float64), torch.ones_like(found), 1e-8)


def test_loudness_level(amt: Any) -> None:
    """AMT's table; the inverse; silence, what is above the curve, what is no loudness; numbers and types; gradients."""
    sone, phon = (torch.from_numpy(amt[name]) for name in ("sone", "phon"))
    assert_within(tamt.sone2phon(sone), phon, 0.03)
    level = torch.linspace(0, 140, 281, dtype=torch.float64)
    for model in GROWTH:
        assert_within(tamt.sone2phon(tamt.phon2sone(level, model), model), level, 1e-10)
        assert tamt.sone2phon(tamt.phon2sone(40.0, model), model) == pytest.approx(40)
    odd = tamt.sone2phon(torch.tensor([0.0, 1e-9, -1.0, math.nan, math.inf]))
    assert odd[:2].tolist() == [0, 0]
    assert odd[2:4].isnan().all()
    assert odd[4] == math.inf
    assert tamt.phon2sone(torch.tensor([-1.0, math.nan])).isnan().all()
    assert tamt.sone2phon(torch.tensor([1, 2])).dtype == torch.float32
    assert tamt.sone2phon(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    x = torch.tensor([0.0, 0.1, 1.0, 400.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(tamt.sone2phon(x).sum(), x)
    assert slope.isfinite().all()
    assert torch.autograd.gradcheck(
        tamt.phon2sone, (torch.tensor([10.3, 50.2], dtype=torch.float64, requires_grad=True),)
    )
    for function in (tamt.sone2phon, tamt.phon2sone):
        with pytest.raises(ValueError, match="model must be one of 'moore2016', 'glasberg2002', got 'zwicker'"):
            function(1.0, "zwicker")
        with pytest.raises(ValueError, match=r"is -1 .*, but has to be finite and at least 0"):
            function(-1)


@models
@dtypes
def test_stream(make: Any, dtype: torch.dtype) -> None:
    """Chunks of any length, and silence behind the sound, give what one call gives; a frame comes when it can."""
    model = make(dtype=dtype)
    step = model._step
    x = 0.02 * torch.randn(2, 2, 9000, dtype=dtype)
    whole = model(x)
    time = {name: -2 if name == "specific" else -1 for name in whole._fields if name != "peak"}
    for cuts in ([9000, 3072], [1, 0, 3071, 2000, 31, 700, 3197, 3072]):
        state, parts, done = None, [], 0
        for chunk in nn.functional.pad(x, (0, model.latency)).split(cuts, -1):
            found, state = model.stream(chunk, state)
            parts.append(found)
            before, done = done, done + chunk.shape[-1]
            frames = [max(0, (end - model.latency) // step + 1) for end in (before, done)]
            assert found.long_term.shape[-1] == frames[1] - frames[0]
            assert all(part.shape[:2] == (2, 2) or name == "specific" for name, part in zip("pq", state, strict=False))
        tolerance = 1e-5 if dtype == torch.float32 else 1e-10
        for name, dim in time.items():
            joined = torch.cat([getattr(part, name) for part in parts], dim)
            expected = getattr(whole, name)
            assert joined.shape == expected.shape
            assert_within(joined / expected.max(), expected / expected.max(), tolerance)
        peaks = torch.stack([part.peak for part in parts]).amax(0)
        assert_within(peaks / whole.peak, torch.ones_like(peaks), tolerance)


@models
def test_states_that_do_not_fit(make: Any) -> None:
    model, x = make(), torch.zeros(2, 2, 100)
    _, state = model.stream(x)
    with pytest.raises(TypeError, match="state must be a tuple of 3 tensors, as stream returns it, got tuple of 1"):
        model.stream(x, state[:1])
    with pytest.raises(ValueError, match=r"state\[0\] must have shape \(2, 0\.\.6143\) for this sound, got \(2, 2, "):
        model.stream(x[0], state)
    with pytest.raises(ValueError, match=r"state\[2\] must have shape \(2, 2\) for this sound, got \(2,\)"):
        model.stream(x, (*state[:2], state[2][:, 0]))
    with pytest.raises(TypeError, match="must have the sound's"):
        model.stream(x, (state[0].double(), *state[1:]))


def test_times_of_frames_that_a_stream_gives() -> None:
    model = tamt.Moore2016Loudness(hop=4)
    assert torch.equal(model.times(10)[3:], model.times(7, start=3))
    with pytest.raises(ValueError, match="start must be an integer of at least 0, got -1"):
        model.times(7, -1)


def test_stages_joined_by_hand_are_the_model() -> None:
    """As docs/guide/loudness.md has it."""
    hop, reach = 4, 3072
    model, x = tamt.Moore2016Loudness(hop=hop), 0.02 * torch.randn(2, 8000)
    ear = tamt.OuterMiddleEar(32000, "free")
    db_max = tamt.spl.pascal2spl(1 / math.sqrt(2))
    spectrum = tamt.Moore2016Spectrum(32000, hop, db_max, joint_threshold=True)
    pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10)
    specific_loudness, inhibition = tamt.Moore2016SpecificLoudness(), tamt.BinauralInhibition()
    constants = [1 - (1 - a) ** hop for a in (0.045, 0.033, 0.01, 0.00133)]
    short_term, long_term = tamt.AttackRelease(*constants[:2], dim=-2), tamt.AttackRelease(*constants[2:])

    first = reach - 1024 + ear.delay  # where the 2048 samples of frame 0 begin
    heard = ear(nn.functional.pad(x, (reach, reach)))[:, first:]
    heard = nn.functional.pad(heard, (0, spectrum.hop))
    freqs, intensity = spectrum.intensities(heard[None])
    excitation = pattern.excitation(freqs, intensity)[:, 0]
    specific = specific_loudness(excitation)
    short = 0.25 * inhibition(short_term(specific)).sum(-1)
    by_hand = long_term(short).sum(0)
    expected = model(x).long_term
    assert by_hand.shape == expected.shape
    assert_within(by_hand, expected, 1e-5 * expected.max().item())


def test_one_ear_stands_for_both() -> None:
    """A sound (T,) or (..., 1, T) has the loudness of the same in both ears, and half the work."""
    model, x = tamt.Moore2016Loudness(dtype=torch.float64, hop=8), 0.02 * torch.randn(3, 1, 2000, dtype=torch.float64)
    both, one = model(x.expand(3, 2, -1)), model(x)
    assert one.specific.shape == (3, 1, 8, 150)
    for name in ("short_term", "long_term", "peak"):
        assert_within(getattr(one, name), getattr(both, name), 1e-12)
    assert_within(one.long_term_ears.expand(3, 2, -1), both.long_term_ears, 1e-12)
    assert_within(model(x[0, 0]).long_term, both.long_term[0], 1e-12)
    assert model(x[0, 0]).specific.shape == (1, 8, 150)


@models
def test_parts_are_one(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients frames are computed some at a time, in rows and in time; the numbers are those of one call."""
    model, x = make(dtype=torch.float64), 0.02 * torch.randn(3, 2, 500, dtype=torch.float64)
    whole = model(x.requires_grad_())
    for most in (5, 14):
        monkeypatch.setattr("tamt.loudness.meter.ROWS", (most, most))
        with torch.no_grad():
            for part, expected in zip(model(x), whole, strict=True):
                assert_within(part, expected.detach(), 1e-12 * expected.max().item())


@models
def test_what_is_not_finite_changes_nothing_before_it(make: Any) -> None:
    """But for the 96 ms that the ear's filter and the window look ahead; and nothing behind is finite."""
    model, x = make(dtype=torch.float64), 0.02 * torch.randn(2, 1, 16000, dtype=torch.float64)
    clean = model(x)
    for value in (math.nan, math.inf):
        spoilt = x.clone()
        spoilt[1, 0, 9000] = value
        found = model(spoilt)
        assert torch.equal(found.long_term[0], clean.long_term[0])
        first = (9000 - 3072) // model._step + 1
        assert_within(found.long_term[1].flatten()[:first], clean.long_term[1].flatten()[:first], 1e-9)
        assert found.long_term[1].flatten()[first + 1 :].isnan().all()
        assert found.peak[1].isnan().all()


def test_second_derivatives_where_an_ear_is_silent() -> None:
    inhibition = tamt.BinauralInhibition(learnable=True)
    ears = torch.stack((torch.rand(4, 150), torch.zeros(4, 150)))
    (first,) = torch.autograd.grad(inhibition(ears).sum(), inhibition.B, create_graph=True)
    assert torch.autograd.grad(first, inhibition.B)[0].isfinite()


def test_gradients_reach_the_sound_and_every_number() -> None:
    """Of loudness that rises and decays; finite where the sound is silent, and of second order."""
    model = tamt.Moore2016Loudness(learnable="relative", dtype=torch.float64, hop=32)
    x = nn.functional.pad(0.02 * torch.randn(2, 300, dtype=torch.float64), (2000, 6000)).requires_grad_()
    loudness = model(x)
    grads = torch.autograd.grad(loudness.long_term.sum(), (x, *model.parameters()), create_graph=True)
    assert all(g.isfinite().all() and g.any() for g in grads)
    again = torch.autograd.grad(grads[0].square().sum(), x)[0]
    assert again.isfinite().all()


def test_sound_that_cannot_be_in_pascal() -> None:
    model, x = tamt.Moore2016Loudness(hop=64), torch.zeros(2, 100)
    x[0, 3] = 2.0**15
    x[1, 5] = math.nan
    for call in (model.__call__, model.stream):
        with pytest.warns(UserWarning, match="must be in pascal, but has a peak above 200 Pa.*calibrate"):
            call(x)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model(x)
        model.stream(x)
    assert [warning.filename for warning in seen] == [__file__] * 2
    x[1, 5] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x / 200)
    with pytest.raises(TypeError, match=r"must be of a floating type, got torch\.int16"):
        model(x.to(torch.int16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fs": 44100}, "fs must be 32000 Hz, the rate of the model, got 44100: resample the sound first"),
        ({"field": "room"}, "field must be one of .*'free', 'diffuse', 'eardrum'.*, got 'room'"),
        ({"hop": 0.5}, "hop must be an integer of at least 1, got 0.5"),
        ({"hop": 65}, "hop must be at most 64 ms, the length of a frame, got 65"),
    ],
)
@models
def test_wrong_options(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_high_levels() -> None:
    """1 kHz at 120 dB SPL by both laws; below 100 dB they are one."""
    for high, sone in (("1997", 560.4), ("2007", 305.69)):
        model = tamt.Glasberg2002Loudness(high=high, hop=32, dtype=torch.float64)
        assert model(tone(120)).instantaneous[4].item() == pytest.approx(sone, rel=2e-3)
        assert model(tone(40)).instantaneous[4].item() == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="high must be one of '1997', '2007', got '2002'"):
        tamt.Glasberg2002SpecificLoudness(high="2002")


def test_wrong_options_of_one_model() -> None:
    with pytest.raises(ValueError, match="version must be one of '2018', '2016', got '2020'"):
        tamt.Moore2016Loudness(version="2020")
    with pytest.raises(ValueError, match="front_end must be one of 'published', 'documents', got 'amt'"):
        tamt.Glasberg2002Loudness("amt")
    with pytest.raises(ValueError, match="hop must be 32 ms with front_end='documents', got 1"):
        tamt.Glasberg2002Loudness("documents", hop=1)
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 2, T\).*got \(3, 100\); sounds \(B, T\) are"):
        tamt.Moore2016Loudness()(torch.zeros(3, 100))
    with pytest.raises(ValueError, match=r"got \(100, 2\); samples by ears are sound.T"):
        tamt.Moore2016Loudness()(torch.zeros(100, 2))
    with pytest.raises(ValueError, match="fc must hold frequencies of at least 40 Hz, got 20"):
        tamt.Moore2016SpecificLoudness([20.0, 100.0])
    with pytest.raises(ValueError, match=r"step must lie in \[0.01, 18\] Cam, got 0"):
        tamt.BinauralInhibition(step=0)
    with pytest.raises(ValueError, match=r"specific must have shape \(\.\.\., 2, S, N\).*got \(3, 4, 150\)"):
        tamt.BinauralInhibition()(torch.zeros(3, 4, 150))


@pytest.mark.parametrize("learnable", [False, True, "relative"])
def test_a_state_dict_serves_every_hop(learnable: Any) -> None:
    """What was learnt with few frames is used with many; the constants are those of 1 ms."""
    coarse, fine = (tamt.Moore2016Loudness(hop=hop, learnable=learnable) for hop in (16, 4))
    x = 0.02 * torch.randn(1, 3000)
    before = fine(x).long_term
    fine.load_state_dict(coarse.state_dict())
    assert torch.equal(fine(x).long_term, before)
    assert fine.design()["long_term.release"].item() == pytest.approx(0.00133)
    with pytest.raises(AttributeError):
        fine.hop = 2


def test_one_ear_leaves_no_number_without_gradient() -> None:
    model = tamt.Moore2016Loudness(hop=64, learnable="relative")
    model(0.02 * torch.randn(1, 500)).peak.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@models
def test_no_sound(make: Any) -> None:
    """No samples are one frame of silence, and no sounds are no results."""
    loudness = make()(torch.zeros(2, 0))
    assert loudness.long_term.shape[-1] == 1
    assert loudness.peak.max() < 1e-7
    assert make()(torch.zeros(0, 2, 100)).peak.numel() == 0


@models
def test_silence_is_no_loudness(make: Any) -> None:
    """But for the least power that bands have."""
    least = 1e-7 if "documents" in repr(make()) else 0
    assert all(part.max() <= least for part in make()(torch.zeros(1, 3000)))


def test_other_channels() -> None:
    """Half the distance between channels: twice the channels, and about the same inhibition and loudness."""
    coarse, fine = (
        tamt.Moore2016ExcitationPattern(erb_step=step, spreading_limit_octaves=10) for step in (0.25, 0.125)
    )
    components = torch.tensor([500.0, 2000.0]), torch.tensor([60.0, 50.0])
    sums = []
    for pattern, step in ((coarse, 0.25), (fine, 0.125)):
        excitation = 10 ** (pattern(*components) / 10)
        specific = tamt.Moore2016SpecificLoudness(pattern.fc_channels)(excitation)[None, None]
        ears = torch.cat((specific, 0.3 * specific))
        sums.append(step * tamt.BinauralInhibition(step)(ears).sum((-2, -1)))
    assert_within(sums[1] / sums[0], torch.ones(2), 5e-3)
