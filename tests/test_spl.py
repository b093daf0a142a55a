"""Units of level: outside numbers, the modules that take them, numbers and tensors, gradients, errors."""

import doctest
import math

import numpy as np
import pytest
import torch

import tamt.spl
from tamt import Moore2016Spectrum, MultiResolutionFFT
from tamt.spl import (
    REFERENCE_PRESSURE,
    STAPES_GAIN,
    STAPES_LEVEL,
    calibrate,
    full_scale_pascal,
    pascal2spl,
    spl2pascal,
    stapes_velocity,
)

CONVERSIONS = [spl2pascal, pascal2spl, full_scale_pascal, stapes_velocity]
OF_LEVEL = [spl2pascal, full_scale_pascal, stapes_velocity]

conversions = pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda function: function.__name__)
of_level = pytest.mark.parametrize("convert", OF_LEVEL, ids=lambda function: function.__name__)


@pytest.mark.parametrize(
    ("level", "pressure"),
    [
        (0, 20e-6),
        (93.9794, 1.0),  # sound calibrators: 1 Pa
        (94, 1.00237),
        (114, 10.0237),
        (120, 20.0),
        (194.09373, 101325.0),  # a standard atmosphere
        (-20, 2e-6),
    ],
)
def test_pressure(level, pressure):
    assert spl2pascal(level) == pytest.approx(pressure, rel=1e-5)
    assert pascal2spl(pressure) == pytest.approx(level, abs=1e-4)


def test_full_scale_is_the_peak_of_a_sine():
    sine = full_scale_pascal(94) * torch.sin(2 * math.pi * torch.arange(100, dtype=torch.float64) / 20)
    rms = sine.square().mean().sqrt().item()
    assert rms == pytest.approx(1.00237, rel=1e-5)
    assert full_scale_pascal(90.9691) == pytest.approx(1.0, rel=1e-5)  # 1 Pa of peak, 3.01 dB less than of rms


def test_stapes_velocity():
    """Goode et al. (1994) as in AMT: 4.24e-4 m/s for each pascal at 1 kHz."""
    assert stapes_velocity(100.0) == pytest.approx(1.2e-3, rel=1e-12)
    assert stapes_velocity(0) == 1.2e-8
    assert pytest.approx(4.243e-4, rel=1e-3) == STAPES_GAIN
    assert pytest.approx(-161.427, abs=1e-3) == STAPES_LEVEL
    assert stapes_velocity(73.0) == pytest.approx(STAPES_GAIN * full_scale_pascal(73.0), rel=1e-14)


def test_what_the_modules_read():
    """A tone of 60 dB SPL, 20 dB below full scale, away from 1 kHz, where two windows meet."""
    fs = 32000
    samples = 10 ** ((60 - 80) / 20) * torch.sin(2 * math.pi * 1500 * torch.arange(fs) / fs)
    sound = full_scale_pascal(80) * samples
    psd, freqs = MultiResolutionFFT(fs)(sound)
    assert pascal2spl((psd[0, 10].sum() * freqs[1]).sqrt()).item() == pytest.approx(60, abs=0.1)
    spectrum = Moore2016Spectrum(fs)
    given = (sound / full_scale_pascal(spectrum.db_max)).abs().max()
    assert given.item() == pytest.approx(10 ** ((60 - spectrum.db_max) / 20), rel=1e-5)


def test_reference_pressure_is_one_number():
    from tamt.excitation import erb_integration

    assert erb_integration.REFERENCE_PRESSURE is REFERENCE_PRESSURE


@conversions
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_tensors_and_numbers_agree(convert, dtype):
    values = torch.tensor([[0.5, 20.0], [60.0, 93.0]], dtype=dtype)
    converted = convert(values)
    assert converted.shape == values.shape
    assert converted.dtype == dtype
    if dtype != torch.float16:  # which has no 20e-6 of its own
        expected = torch.tensor([[convert(v) for v in row] for row in values.tolist()], dtype=dtype)
        torch.testing.assert_close(converted, expected, rtol=1e-5, atol=0)
    assert isinstance(convert(60), float)
    assert convert(torch.tensor([60])).dtype == torch.get_default_dtype()


@conversions
def test_gradients(convert):
    values = torch.tensor([0.5, 60.0, 93.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convert, values, eps=1e-5)


@of_level
def test_limits(convert):
    assert convert(-1e5) == 0
    assert convert(1e5) == math.inf
    assert not convert(torch.tensor([-1e5])).any()


def test_silence():
    assert pascal2spl(0) == -math.inf
    assert pascal2spl(torch.zeros(2)).tolist() == [-math.inf, -math.inf]


@conversions
def test_errors(convert):
    name, unit = ("pressure", "Pa") if convert is pascal2spl else ("level", "dB SPL")
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{name} is {value:g} {unit}, but has to be finite"):
            convert(value)
    for value in (True, "60", None):
        with pytest.raises(TypeError, match=f"{name} is {value!r} of type .*, but has to be a tensor or a real number"):
            convert(value)
    with pytest.raises(TypeError, match=rf"{name} is a tensor of torch\.complex64"):
        convert(torch.ones(1, dtype=torch.complex64))


def test_a_pressure_is_not_negative():
    with pytest.raises(ValueError, match="pressure is -1 Pa, but has to be finite and at least 0"):
        pascal2spl(-1.0)


def calibrator(*amplitudes: float, dtype=torch.float64) -> torch.Tensor:
    """A second of 1 kHz at 48 kHz of these amplitudes, (C, T)."""
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(48000, dtype=torch.float64) / 48000)
    return (torch.tensor(amplitudes, dtype=torch.float64)[:, None] * tone).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_calibration(dtype):
    """By a tone of 94 dB SPL of 1.00237 Pa each channel gets the pressure that its own samples stand for."""
    recording = calibrator(0.5, 0.05, dtype=dtype)
    factor = calibrate(recording, 94)
    assert factor.shape == (2, 1)
    assert factor.dtype == torch.promote_types(dtype, torch.float32)
    expected = torch.tensor([[math.sqrt(2) * 1.00237 / 0.5], [math.sqrt(2) * 1.00237 / 0.05]]).to(factor.dtype)
    torch.testing.assert_close(factor, expected, rtol=1e-3 if dtype == torch.float16 else 1e-5, atol=0)
    assert (pascal2spl((factor * recording).square().mean(-1).sqrt()) - 94).abs().max() < 1e-2
    assert calibrate(recording[0], 114).item() == pytest.approx(10 * factor[0].item(), rel=1e-6)


def test_calibration_where_the_level_of_full_scale_is_known():
    assert calibrate(calibrator(1.0), 94).item() == pytest.approx(full_scale_pascal(94), rel=1e-12)


def test_calibration_of_any_scale_and_kind_of_array():
    recording = calibrator(0.3, dtype=torch.float32)
    expected = calibrate(recording, 94)
    for scale in (1e-30, 1e30):  # whose squares float32 does not have
        torch.testing.assert_close(scale * calibrate(scale * recording, 94), expected, rtol=1e-6, atol=0)
    array = np.asfortranarray(recording.numpy().astype(">f4"))
    for given in (array, array[:, ::-1]):
        assert torch.is_tensor(calibrate(given, 94))
        torch.testing.assert_close(calibrate(given, 94), expected, rtol=1e-6, atol=0)
    levels = torch.tensor([[94.0], [100.0]])
    torch.testing.assert_close(calibrate(recording.expand(2, -1), levels)[1], expected[0] * 10 ** (6 / 20))
    short = calibrator(0.3)[:, :40].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: calibrate(x, 94), short)


def test_recordings_that_calibrate_nothing():
    tone = calibrator(0.5, 0.5)
    for dtype in (torch.int16, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"recording must be floating, got {dtype}: divide integers by their full"):
            calibrate(tone.to(dtype), 94)
    with pytest.raises(TypeError, match="recording must be floating, got int16: divide integers"):
        calibrate((32767 * tone).numpy().astype(np.int16), 94)
    with pytest.raises(TypeError, match="recording must be a tensor or an array, got list"):
        calibrate([0.1, 0.2], 94)
    for value in (math.nan, math.inf):
        spoilt = tone.clone()
        spoilt[1, 7] = value
        with pytest.raises(ValueError, match="recording has samples that are not finite"):
            calibrate(spoilt, 94)
    with pytest.raises(ValueError, match="recording is silent in channel 2 of 2: all of its samples are 0"):
        calibrate(torch.stack((tone[0], torch.zeros(48000))), 94)
    with pytest.raises(ValueError, match="recording is silent: all of its samples are 0"):
        calibrate(torch.zeros(100), 94)
    with pytest.raises(ValueError, match=r"recording is silent at index \(0, 1\): all of its samples are 0"):
        calibrate(torch.stack((tone[0], torch.zeros(48000)))[None], 94)
    for array in (tone.T, tone[:1].T.numpy()):
        with pytest.raises(ValueError, match=r"got \(48000, .\), which looks like \(T, C\): transpose it"):
            calibrate(array, 94)
    for shape in ((), (0,), (2, 0)):
        with pytest.raises(ValueError, match=r"recording must have shape \(..., T\) with T >= 1, got \("):
            calibrate(torch.zeros(shape), 94)
    with pytest.raises(ValueError, match="level is nan dB SPL, but has to be finite"):
        calibrate(tone, math.nan)


def test_recordings_that_are_no_steady_sine_are_doubted():
    (tone,) = calibrator(0.5)
    noise = torch.randn(48000, dtype=torch.float64)
    late = torch.where(torch.arange(48000) < 24000, 0.0, tone)
    doubts = {
        "a part is silent": late,
        "the level changes by 6.02 dB": torch.where(torch.arange(48000) < 24000, 0.5 * tone, tone),
        "the peak is 1.0. times the root mean square": (100 * tone).clamp(-1, 1),
        "the peak is [3-6].* times the root mean square": noise,
    }
    for problem, recording in doubts.items():
        with pytest.warns(UserWarning, match=f"is not a calibrator's steady tone alone: {problem}"):
            factor = calibrate(recording, 94)
        assert pascal2spl((factor * recording).square().mean().sqrt()).item() == pytest.approx(94)
    with pytest.warns(UserWarning, match="a sine's is 1.41\\) in channel 2 of 2; what it calibrates may be wrong"):
        calibrate(torch.stack((tone, noise)), 94)
    calibrate(tone + 0.01 * noise, 94)  # as a microphone hears it; warnings are errors
    calibrate(noise[:500], 94)  # too short to tell


def test_examples():
    assert doctest.testmod(tamt.spl).failed == 0
