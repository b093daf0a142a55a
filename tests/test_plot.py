import re
import sys

import numpy as np
import pytest
import torch

from tamt import (
    Cochleagram,
    DRNLFilterbank,
    GammatoneFilterbank,
    Moore2016ExcitationPattern,
    Moore2016Spectrum,
    f2erbrate,
    plot,
)
from tamt.plot._drawing import thinned
from tamt.spl import STAPES_LEVEL

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

FC = np.array([100.0, 300.0, 1000.0, 4000.0])


def drawn(figure):
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_filter_responses():
    frequencies = torch.logspace(1.5, 3.9, 50)
    response = torch.ones(4, 50, dtype=torch.complex64, requires_grad=True)
    (axes,) = drawn(plot.filter_responses(frequencies, response, FC, title="Four filters"))
    assert len(axes.lines) == 4
    assert axes.figure.get_suptitle() == "Four filters"
    assert axes.get_xlabel() == "Frequency (Hz)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "100", "200", "500", "1k", "2k", "4k"]
    assert axes.get_ylim() == pytest.approx((-60, 5))


def shown_of(axes):
    """The part of each line that lies within the axis of decibels."""
    low, high = axes.get_ylim()
    return [((line.get_ydata() >= low) & (line.get_ydata() <= high)).mean() for line in axes.lines]


def test_filter_responses_of_both_paths_of_drnl_filters_are_seen():
    bank, f = DRNLFilterbank((250, 8000), 44100, n_channels=6), torch.logspace(2, 4, 100)
    responses = bank.path_responses(f)
    panels = drawn(plot.filter_responses(f, responses, bank.fc, "Paths", names=["linear", "nonlinear"]))
    assert [axes.get_title(loc="left") for axes in panels] == ["linear", "nonlinear"]
    assert panels[0].figure.get_suptitle() == "Paths"
    assert panels[0].get_ylim() == panels[1].get_ylim()
    for axes, response in zip(panels, responses, strict=True):
        levels = 20 * response.abs().log10().numpy()
        low, high = axes.get_ylim()
        assert low < levels.max(1).min() - 50
        assert levels.max() < high
        for line, level in zip(axes.lines, levels, strict=True):
            np.testing.assert_allclose(line.get_ydata()[level > low], level[level > low], rtol=1e-5)
    (linear,) = drawn(plot.filter_responses(f, responses[0], bank.fc))
    assert min(shown_of(linear)) > 0.3
    first, second = drawn(plot.filter_responses(f, torch.stack(responses), bank.fc, dynamic_range=30))
    assert [first.get_title(loc="left"), second.get_title(loc="left")] == ["set 1", "set 2"]
    lowest, top = (20 * responses[row].abs().log10() for row in (1, 0))
    # The weakest are more than 30 dB below the strongest.
    assert lowest.max() < top.max() - 30
    assert first.get_ylim() == pytest.approx((top.max().item() - 60, top.max().item() + 2.5))


def test_filter_responses_of_silent_filters():
    nothing, gains = np.zeros((4, 3)), np.array([[0, 0, 0], [1, 10, 1], [0, 1, np.nan], [np.nan] * 3])
    assert drawn(plot.filter_responses([100, 200, 300], nothing, FC))[0].get_ylim() == pytest.approx((-60, 5))
    (axes,) = drawn(plot.filter_responses([100, 200, 300], gains.tolist(), FC))
    assert axes.get_ylim() == pytest.approx((-60, 25))


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (20, 96000, ["20", "50", "100", "200", "500", "1k", "2k", "4k", "8k", "16k", "32k", "64k"]),
        (0, 4000, ["20", "50", "100", "200", "500", "1k", "2k", "4k"]),
        (1400, 6700, ["1.5k", "2k", "3k", "4k", "5k", "6k"]),
        (2900, 3200, ["2.9k", "3k", "3.1k", "3.2k"]),
    ],
)
def test_axes_of_any_range_have_labels(low, high, labels):
    (axes,) = drawn(plot.filter_responses([low, high], np.ones((4, 2)), FC))
    assert [label.get_text() for label in axes.get_xticklabels()] == labels


def test_excitation_patterns():
    model, levels = Moore2016ExcitationPattern(spreading_limit_octaves=10), torch.arange(20.0, 101.0, 20)
    excitation = model(torch.tensor([1000.0]), levels[:, None])
    (axes,) = drawn(plot.excitation_patterns(excitation, levels, model.fc_channels, title="A tone"))
    assert axes.figure.get_suptitle() == "A tone"
    assert axes.get_ylabel() == "Excitation level (dB SPL)"
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((0, 1.08 * excitation.max().item()))
    for line, curve in zip(axes.lines, excitation.numpy(), strict=True):
        np.testing.assert_allclose(line.get_ydata()[curve > low], curve[curve > low])
        np.testing.assert_array_equal(line.get_xdata(), model.fc_channels)
    # At the peaks, in the colours of the lines, and apart.
    assert [text.get_text() for text in axes.texts] == ["20", "40", "60", "80", "100 dB SPL"]
    for text, line, curve in zip(axes.texts, axes.lines, excitation, strict=True):
        assert text.xy == pytest.approx((model.fc_channels[curve.argmax()].item(), curve.max().item()))
        assert text.get_color() is line.get_color()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in zip(boxes[1:], boxes[:-1], strict=True))
    assert [label.get_text() for label in axes.get_xticklabels()][-3:] == ["2k", "4k", "8k"]

    named = {"dynamic_range": 60, "scale": "Cam", "label": "Excitation (dB)"}
    (axes,) = drawn(plot.excitation_patterns(excitation, levels, model.fc_channels, **named))
    assert axes.get_ylim()[0] == pytest.approx(excitation.max().item() - 60)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("ERB-number (Cam)", "Excitation (dB)")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "15", "20", "25", "30", "35"]
    np.testing.assert_allclose(f2erbrate(torch.tensor(axes.get_xticks())), np.arange(5, 40, 5), rtol=1e-6)


def test_excitation_patterns_that_lie_close_or_are_silent():
    peak = np.array([0.0, 50, 30, 10])
    (axes,) = drawn(plot.excitation_patterns(peak + np.arange(3.0)[:, None], [60, 61, 62], FC))
    assert [text.get_text() for text in axes.texts] == ["62 dB SPL"]
    assert axes.get_ylim() == pytest.approx((0, 1.08 * 52))
    faint = np.stack((peak - 45, np.full(4, -np.inf), np.full(4, np.nan)))
    (axes,) = drawn(plot.excitation_patterns(faint, [5, 0, -10], FC))
    assert axes.get_ylim() == pytest.approx((-5, 5.8))
    assert [text.get_text() for text in axes.texts] == ["5 dB SPL"]
    assert drawn(plot.excitation_patterns(faint[1:], [0, -10], FC))[0].get_ylim() == pytest.approx((-10, 0.8))


@pytest.mark.parametrize("unit", ["dB SPL", "dB re 1 m/s"])
def test_tuning_curves(unit):
    bank, f = DRNLFilterbank([1000.0, 4000.0], 44100, dtype=torch.float32), torch.linspace(2000, 6000, 21)
    levels = torch.tensor([0.0, 40, 80]) + STAPES_LEVEL
    output = bank.tone_responses(levels, f, fc=4000.0).requires_grad_()
    offset, named = (-STAPES_LEVEL, {}) if unit == "dB SPL" else (0, {"unit": unit})
    gain = output - levels[:, None]
    for quantity, wanted, label in (
        ("gain", gain, "Gain (dB)"),
        ("output", output + offset, f"Output level ({'dB re stapes at 0 dB SPL' if offset else unit})"),
    ):
        (axes,) = drawn(plot.tuning_curves(levels, f, output, 4000.0, "Tuning", quantity, **named))
        curves, dots, where = axes.lines[:3], axes.lines[3:6], axes.lines[6]
        best = wanted.argmax(1)
        for row, (curve, dot) in enumerate(zip(curves, dots, strict=True)):
            inside = wanted[row].detach() > axes.get_ylim()[0]
            np.testing.assert_allclose(curve.get_ydata()[inside], wanted[row].detach()[inside], rtol=1e-5)
            assert dot.get_xydata()[0] == pytest.approx((f[best[row]].item(), wanted[row].max().item()), rel=1e-5)
        assert list(where.get_xdata()) == [4000, 4000]
        peaks = wanted.detach().amax(1).tolist()
        assert axes.get_ylim() == pytest.approx((max(min(peaks), max(peaks) - 40) - 40, max(peaks) + 10 / 3), abs=1e-4)
        assert axes.get_ylabel() == label
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        expected = [f"{level} dB SPL" for level in (0, 40, 80)]
        if unit != "dB SPL":
            expected = [f"{level + STAPES_LEVEL:.1f} {unit}" for level in (0, 40, 80)]
        assert names == (expected if quantity == "gain" else expected[::-1])
        assert axes.get_xlabel() == "Frequency of the tone (Hz)"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 5000])
@pytest.mark.parametrize("compression", [None, "db", "log", 0.3])
def test_cochleagram(channels, frames, compression):
    values = torch.rand(channels, 4, frames, requires_grad=True)
    times = (np.arange(frames) + 0.5) * 0.01
    wave = np.full((channels, frames), -0.5), np.full((channels, frames), 0.5)
    named = {"compression": compression}
    assert len(drawn(plot.cochleagram(values, times, FC, **named, waveform=wave))) == 2 * channels
    assert len(drawn(plot.cochleagram(values, times, FC, **named))) == channels


SCALES = [
    ("envelope", None, "Envelope level (dB re 1 m/s)"),
    ("power", None, "Level (dB re 1 m/s)"),
    ("halfwave", None, "Level of the positive half (dB re 1 m/s)"),
    ("envelope", "db", "Envelope level (dB re 1 m/s)"),
    ("power", "db", "Level (dB re 1 m/s)"),
    ("halfwave", "db", "Level of the positive half (dB re 1 m/s)"),
    ("envelope", "log", "ln(mean of envelope²/2), re 1 m/s"),
    ("halfwave", "log", "ln(mean of positive half), re 1 m/s"),
    ("power", 0.3, "(mean square + 1e-06)^0.3, re 1 m/s"),
]


@pytest.mark.parametrize(("detector", "compression", "label"), SCALES)
def test_cochleagram_draws_what_a_cochleagram_gives(detector, compression, label):
    bank = GammatoneFilterbank(FC, 16000, dtype=torch.float64)
    cochleagram = Cochleagram(bank, 160, 320, detector, compression, floor=1e-6)
    sound = 0.01 * torch.randn(4000, dtype=torch.float64)
    sound[:1000] = 0  # below the floor
    frames = cochleagram(sound)
    named = {"detector": detector, "compression": compression, "floor": 1e-6, "reference": "1 m/s"}
    (axes,) = drawn(plot.cochleagram(frames, cochleagram.times(24), cochleagram.fc, dynamic_range=30, **named))
    image = axes.collections[0]
    factor = 20 if detector == "halfwave" else 10
    with np.errstate(divide="ignore"):
        value = frames.numpy() if compression else factor * np.log10(frames.numpy())
    heard = np.isfinite(value)
    np.testing.assert_allclose(image.get_array()[heard], value[heard], rtol=1e-6)
    assert (image.get_array()[~heard] <= -200).all()
    top, floor = value.max(), {None: -np.inf, "db": factor * -6, "log": np.log(1e-6), 0.3: 1e-6**0.3}[compression]
    span = {"log": 30 / factor * np.log(10), 0.3: np.inf}.get(compression, 30)
    assert image.get_clim() == pytest.approx((max(top - span, floor), top))
    assert axes.figure.axes[-1].get_ylabel() == label
    assert axes.get_xlim() == pytest.approx((0.005, 0.245))


@pytest.mark.parametrize(
    ("detector", "compression", "least", "limits"),
    [
        ("power", None, 0.0, (-60, 0)),
        ("halfwave", None, 0.0, (-60, 0)),
        ("envelope", "db", -100.0, (-100, -40)),
        ("halfwave", "db", -200.0, (-200, -140)),
        ("power", "log", np.log(1e-10), (np.log(1e-10), np.log(1e-4))),
        ("power", 0.5, 1e-5, (1e-5, 1 + 1e-5)),
    ],
)
def test_cochleagram_of_silence_and_of_one_filter_on_an_erb_axis(detector, compression, least, limits):
    silence = np.full((1, 3), least, dtype=np.float32)
    (axes,) = drawn(plot.cochleagram(silence, np.arange(3.0), FC[2:3], detector, compression))
    low, high = axes.get_ylim()
    assert low < 1000 < high
    image = axes.collections[0]
    assert image.get_clim() == pytest.approx(limits)
    assert (image.get_array() < limits[0] + 1e-3).all()


def test_cochleagram_refuses_unknown_scales():
    for named, problem in (
        ({"detector": "rms"}, "detector must be one of"),
        ({"compression": "dB"}, "compression must be None, 'db', 'log' or a number"),
        ({"compression": 1.5}, "compression must be None, 'db', 'log' or a number"),
    ):
        with pytest.raises(ValueError, match=problem):
            plot.cochleagram(np.ones((4, 3)), np.arange(3.0), FC, **named)


def test_cochleagram_joins_frames_by_their_means():
    """Neighbours' means are averaged, whatever the compression."""
    means = np.random.default_rng(0).uniform(0.1, 1, (4, 4000))
    expected = means.reshape(4, 2000, 2).mean(-1)
    for compression, compress in ((None, None), ("db", lambda p: 10 * np.log10(p)), ("log", np.log), (0.5, np.sqrt)):
        given = means if compress is None else compress(means)
        (axes,) = drawn(plot.cochleagram(given, np.arange(4000.0), FC, "power", compression, floor=1e-12))
        wanted = compress(expected) if compress else 10 * np.log10(expected)
        np.testing.assert_allclose(axes.collections[0].get_array(), wanted, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 5000])
def test_level_map(channels, frames):
    levels = torch.full((channels, frames, 4), 70.0, requires_grad=True)
    axes = drawn(plot.level_map(levels, 0.01 * np.arange(frames), FC, label="Excitation level (dB SPL)"))
    assert len(axes) == channels
    image = axes[0].collections[0]
    assert image.get_clim() == pytest.approx((10, 70))
    np.testing.assert_allclose(image.get_array(), 70, rtol=1e-6)


def test_level_map_keeps_bands_and_frames_apart():
    levels = np.arange(12.0).reshape(3, 4) + 40
    (axes,) = drawn(plot.level_map(levels, np.arange(3.0), FC, title="Levels"))
    np.testing.assert_allclose(axes.collections[0].get_array(), levels.T)
    assert axes.figure.axes[-1].get_ylabel() == "Level (dB SPL)"
    assert axes.figure.get_suptitle() == "Levels"


@pytest.mark.parametrize("silence", [-26.0, -np.inf])
def test_level_map_draws_silence_dark(silence):
    (axes,) = drawn(plot.level_map(np.full((3, 4), silence), np.arange(3.0), FC))
    image = axes.collections[0]
    assert image.get_clim() == (-20, 40)
    assert (image.get_array() < -20).all()
    (axes,) = drawn(plot.level_map(np.full((3, 4), -80.0), np.arange(3.0), FC, label="dB re 1 Pa", least_top=-100))
    assert axes.collections[0].get_clim() == pytest.approx((-140, -80))


def test_components():
    # The second frame has the stronger component, the third more power in all.
    freqs = np.array([[100.0, 0, 0], [1000, 0, 0], [500, 1000, 2000]])
    levels = np.array([[20.0, 0, 0], [60, 0, 0], [58, 59, 58]])
    times = np.array([0.1, 0.2, 0.3])
    over_time, frame = drawn(plot.components(freqs, levels, times, title="Components"))
    np.testing.assert_allclose(
        over_time.collections[0].get_offsets(), [[0.1, 100], [0.3, 500], [0.3, 2000], [0.3, 1000], [0.2, 1000]]
    )
    assert over_time.lines[0].get_xdata() == [0.3, 0.3]
    assert over_time.get_xlim() == pytest.approx((0.05, 0.35))
    assert frame.get_xlabel() == "Level at 0.300 s\n(dB SPL)"
    stems, dots = frame.collections
    np.testing.assert_allclose(dots.get_offsets(), [[58, 500], [59, 1000], [58, 2000]])
    assert len(stems.get_segments()) == 3


def test_components_on_all_bins_and_beyond_them():
    spectrum = Moore2016Spectrum(segment_duration=10)
    freqs, levels, _ = spectrum.dense(1e-2 * torch.randn(1, 2, 8000))
    times = 0.01 * np.arange(levels.shape[1])
    over_time, _ = drawn(plot.components(freqs, levels[0], times))
    assert len(over_time.collections[0].get_offsets()) == torch.isfinite(levels).sum()
    over_time, _ = drawn(plot.components([[5.0, 20000.0]], [[60.0, 60]], [0.0]))
    assert over_time.get_ylim() == (5, 20000)


@pytest.mark.parametrize(("channels", "names"), [(1, [""]), (2, ["left ear", "right ear"]), (3, ["channel 1"])])
def test_components_of_ears(channels, names):
    freqs = torch.full((channels, 2500, 2), 1000.0)
    axes = drawn(plot.components(freqs, torch.full_like(freqs, 50), np.arange(2500.0)))
    assert len(axes) == 2 * channels
    assert [panel.get_title(loc="left") for panel in axes[::2]][: len(names)] == names
    # Every third frame.
    assert len(axes[0].collections[0].get_offsets()) == 2 * 834


@pytest.mark.parametrize("components", [0, 2])
def test_components_of_silence(components):
    nothing = np.zeros((1, 3, components))
    over_time, frame = drawn(plot.components(nothing, nothing, np.arange(3.0)))
    assert len(over_time.collections[0].get_offsets()) == 0
    assert frame.get_xlim() == pytest.approx((-26, 45))


@pytest.mark.parametrize(("ears", "names"), [(1, []), (2, ["left ear", "right ear"])])
def test_loudness(ears, names):
    times, specific = 0.01 * np.arange(30), torch.rand(ears, 30, 4, requires_grad=True)
    short_term = torch.arange(30.0)
    given = specific[0] if ears == 1 else specific
    curves, *images = drawn(plot.loudness(short_term, short_term / 2, times, given, FC, title="Loud"))
    for line, scale, name in zip(curves.lines, (1, 0.5), ("short-term", "long-term"), strict=True):
        np.testing.assert_allclose(line.get_xydata(), np.stack((times, scale * short_term), 1))
        assert line.get_label() == name
    assert curves.get_ylabel() == "Loudness (sone)"
    assert curves.get_ylim() == pytest.approx((0, 1.08 * 29))
    for axes, values in zip(images, specific, strict=True):
        image = axes.collections[0]
        np.testing.assert_allclose(image.get_array(), values.detach().T)
        assert image.get_clim() == pytest.approx((0, specific.max().item()))
        assert axes.get_xlim() == pytest.approx((-0.005, 0.295))
    assert [text.get_text() for axes in images for text in axes.texts] == names
    assert curves.figure.axes[-1].get_ylabel() == "Specific loudness (sone/Cam)"


def test_loudness_without_specific_loudness():
    times, short_term = 0.01 * np.arange(30), torch.arange(30.0)
    (curves,) = drawn(plot.loudness(short_term, short_term / 2, times))
    np.testing.assert_array_equal(curves.lines[0].get_ydata(), short_term)
    assert curves.get_xlim() == pytest.approx((-0.005, 0.295))
    assert curves.get_xlabel() == "Time (s)"


def test_loudness_joins_curves_by_their_largest_value_and_images_by_their_mean():
    rng, times = np.random.default_rng(0), np.arange(4000.0)
    short_term, long_term = rng.uniform(size=(2, 4000))
    specific = rng.uniform(size=(8000, 4))
    own_times = np.arange(8000.0) / 2
    curves, image = drawn(plot.loudness(short_term, long_term, times, specific, FC, own_times))
    for line, values in zip(curves.lines, (short_term, long_term), strict=True):
        np.testing.assert_allclose(line.get_ydata(), values.reshape(2000, 2).max(1))
        np.testing.assert_allclose(line.get_xdata(), 0.5 + 2 * np.arange(2000))
    np.testing.assert_allclose(image.collections[0].get_array(), specific.reshape(2000, 4, 4).mean(1).T)


def test_loudness_of_silence_and_of_one_frame():
    curves, image = drawn(plot.loudness([0], [0], [0], np.zeros((1, 4)), FC))
    assert image.collections[0].get_clim() == (0, 1)
    assert curves.get_ylim() == (0, 1)
    assert [line.get_marker() for line in curves.lines] == [".", "."]


@pytest.mark.parametrize(
    ("unit", "offset", "of_tones", "of_output"),
    [("dB SPL", -STAPES_LEVEL, "dB SPL", "dB re stapes at 0 dB SPL"), ("dB re 1 m/s", 0, "dB re 1 m/s", "dB re 1 m/s")],
)
def test_io_functions(unit, offset, of_tones, of_output):
    levels = torch.arange(-180.0, -19.0, 10.0)
    bent = torch.where(levels < -100, levels + 40, 0.25 * levels - 35)
    named = {} if unit == "dB SPL" else {"unit": unit}
    output = torch.stack((levels, bent))
    (axes,) = drawn(plot.io_functions(levels, output, [500.0, 1000.0], title="Two filters", **named))
    (grey, *_), curves = (
        [line for line in axes.lines if line.get_label() == "slope 1"],
        [line for line in axes.lines if "Hz" in line.get_label()],
    )
    assert grey.get_slope() == 1
    np.testing.assert_allclose([curve.get_ydata() for curve in curves], output + offset, atol=1e-4)
    for curve in curves:
        np.testing.assert_allclose(curve.get_xdata(), levels + offset, atol=1e-4)
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["500 Hz, least slope 1.00", "1000 Hz, least slope 0.25", "slope 1"]
    assert axes.get_xlim() == pytest.approx((-180 + offset, -20 + offset), abs=1e-3)
    assert axes.get_aspect() == 1
    assert axes.get_xlabel() == f"Input level ({of_tones})"
    assert axes.get_ylabel() == f"Output level ({of_output})"
    assert axes.figure.get_suptitle() == "Two filters"


def test_io_functions_of_many_filters_have_a_scale_in_place_of_a_legend():
    levels, fc = np.arange(-90.0, -39, 10), np.linspace(100, 4900, 49)
    axes, *_ = drawn(plot.io_functions(levels, np.tile(levels, (49, 1)), fc))
    assert axes.get_legend() is None
    (scale,) = axes.child_axes
    assert [label.get_text() for label in scale.get_yticklabels()] == ["4k", "2k", "1k", "500", "100"]
    assert scale.get_ylabel() == "Frequency of filter and tone (Hz)"
    named = [line for line in axes.lines if "Hz" in line.get_label()]
    ticks = [39, 19, 9, 4, 0]  # 200 Hz would touch 100 Hz
    np.testing.assert_allclose(scale.get_yticks(), ticks)
    colours = scale._colorbar.mappable.to_rgba(ticks)
    np.testing.assert_allclose([named[row].get_color() for row in ticks], colours)


def test_io_functions_over_few_decibels():
    (axes,) = drawn(plot.io_functions([-1.0, 0.0], [3.0, 4.0], 1910.44))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1910 Hz, least slope 1.00", "slope 1"]


def test_io_functions_refuses_what_has_no_curve():
    with pytest.raises(ValueError, match=r"output has the shape \(2,\), but has to have \(1, 2\)"):
        plot.io_functions([-20, -10], [1, 2], [500])
    for levels in ([-20], [-20, -20]):
        with pytest.raises(ValueError, match="at least two levels, each once"):
            plot.io_functions(levels, [levels], [500])
    with pytest.raises(ValueError, match="no value is finite; at silence a filter has no level"):
        plot.io_functions([-20, -10], [[-np.inf, np.nan]], [500])


def test_levels_in_place_of_velocities_are_refused():
    given = [0.0, 40, 80]
    for draw in (
        lambda: plot.io_functions(given, [given], [500]),
        lambda: plot.tuning_curves(given, [400, 600], np.ones((3, 2)), 500),
    ):
        with pytest.raises(ValueError, match=r"must be in dB re 1 m/s, at most 0, got 80; .* tamt\.spl\.STAPES_LEVEL"):
            draw()


def curves_of(axes):
    return [
        (line.get_label(), tuple(line.get_color()), np.asarray(line.get_xydata()))
        for line in axes.lines
        if hasattr(line.get_xdata(), "__len__") and line.get_label() != "slope 1"
    ]


@pytest.mark.parametrize(
    "picture", ["responses", "io", "tuning", "excitation", "cochleagram", "level_map", "loudness", "10 levels"]
)
def test_order_of_frequencies_and_levels_is_of_no_matter(picture):
    """Axes, colours and names follow the numbers, as a bank that has learnt need not have them in order."""
    rng, times = np.random.default_rng(0), np.arange(3.0)
    levels, some, image = np.array([-80.0, -60, -40]), rng.uniform(-70, -30, (4, 3)), rng.uniform(50, 60, (4, 3))
    many, over_many = np.linspace(0, 80, 14), rng.uniform(20, 80, (14, 4))
    hertz, p, q = np.array([100.0, 900, 5000]), [2, 0, 3, 1], [1, 2, 0]

    def r(q):
        return slice(None, None, -1 if q[0] else 1)

    draw = {
        "responses": lambda p, q: plot.filter_responses(hertz[q], 10 ** (some[p][:, q] / 20), FC[p]),
        "io": lambda p, q: plot.io_functions(levels[q], some[p][:, q], FC[p]),
        "tuning": lambda p, q: plot.tuning_curves(levels[q], FC[p], some.T[q][:, p], 500),
        "excitation": lambda p, q: plot.excitation_patterns(-some.T[q][:, p], -levels[q], FC[p]),
        "10 levels": lambda p, q: plot.excitation_patterns(over_many[r(q)][:, p], many[r(q)], FC[p]),
        "cochleagram": lambda p, q: plot.cochleagram(image[p], times, FC[p]),
        "level_map": lambda p, q: plot.level_map(image[p].T, times, FC[p]),
        "loudness": lambda p, q: plot.loudness(times, times, times, image[p].T, FC[p]),
    }[picture]
    one, other = drawn(draw([0, 1, 2, 3], [0, 1, 2])), drawn(draw(p, q))
    for axes, same in zip(one, other, strict=True):
        assert axes.get_xlim() == same.get_xlim()
        assert axes.get_ylim() == same.get_ylim()
        for (name, colour, points), (its_name, its_colour, its) in zip(curves_of(axes), curves_of(same), strict=True):
            assert name.startswith("_") or name == its_name
            assert colour == its_colour
            np.testing.assert_array_equal(points, its)
        for mesh, its_mesh in zip(axes.collections, same.collections, strict=True):
            np.testing.assert_array_equal(mesh.get_array(), its_mesh.get_array())
        assert [text.get_text() for text in axes.texts] == [text.get_text() for text in same.texts]


def test_what_is_not_known_is_refused():
    units = re.escape("unit must be one of ('dB SPL', 'dB re 1 m/s'), got 'Pa'")
    with pytest.raises(ValueError, match=units):
        plot.io_functions([-20, -10], [[1, 2]], [500], unit="Pa")
    with pytest.raises(ValueError, match=units):
        plot.tuning_curves([-20], [500, 600], [[1, 2]], 500, unit="Pa")
    with pytest.raises(ValueError, match=re.escape("quantity must be one of ('gain', 'output'), got 'level'")):
        plot.tuning_curves([-20], [500, 600], [[1, 2]], 500, quantity="level")
    with pytest.raises(ValueError, match=re.escape("scale must be one of ('Hz', 'Cam'), got 'Bark'")):
        plot.excitation_patterns(np.ones((1, 4)), [60], FC, scale="Bark")
    with pytest.raises(ValueError, match="levels has to be finite"):
        plot.tuning_curves([-np.inf], [500, 600], [[1, 2]], 500)
    with pytest.raises(ValueError, match="names has 1 entries, but the sets of responses are 2"):
        plot.filter_responses([100, 200], np.ones((2, 4, 2)), FC, names=["one"])


@pytest.mark.parametrize("dynamic_range", [0, -60, np.nan, np.inf])
@pytest.mark.parametrize(
    "draw",
    [
        lambda dB: plot.filter_responses([100, 200], np.ones((4, 2)), FC, dynamic_range=dB),
        lambda dB: plot.cochleagram(np.ones((4, 3)), np.arange(3.0), FC, dynamic_range=dB),
        lambda dB: plot.level_map(np.ones((3, 4)), np.arange(3.0), FC, dynamic_range=dB),
        lambda dB: plot.components(np.ones((3, 4)), np.ones((3, 4)), np.arange(3), dynamic_range=dB),
        lambda dB: plot.excitation_patterns(np.ones((1, 4)), [60], FC, dynamic_range=dB),
        lambda dB: plot.tuning_curves([-20], [500, 600], [[1, 2]], 500, dynamic_range=dB),
    ],
)
def test_ranges_that_show_nothing_are_refused(draw, dynamic_range):
    with pytest.raises(ValueError, match=f"dynamic_range must be a positive number of dB, got {dynamic_range}"):
        draw(dynamic_range)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_hide_the_rest(odd):
    """A module gives NaN from the first sample on that is not finite; what came before is drawn to its own range."""
    times, values = np.arange(3.0), np.array([[0.5, 1.0, odd]] * 4)
    (axes,) = drawn(plot.cochleagram(abs(values), times, FC, "power"))
    assert axes.collections[0].get_clim() == pytest.approx((-60, 0))
    assert len(drawn(plot.cochleagram(np.ones((4, 3)), times, FC, waveform=(-abs(values[0]), values[0])))) == 2
    (axes,) = drawn(plot.level_map(60 * values.T, times, FC))
    assert axes.collections[0].get_clim() == pytest.approx((0, 60))
    curves, image = drawn(plot.loudness(values[0], values[1], times, abs(values.T), FC))
    assert curves.get_ylim() == pytest.approx((0, 1.08))
    assert image.collections[0].get_clim() == (0, 1)
    over_time, frame = drawn(plot.components(np.full((3, 4), 1000.0), 60 * values.T, times))
    assert len(over_time.collections[0].get_offsets()) == 8
    assert frame.get_xlim() == pytest.approx((-6, 65))
    assert over_time.lines[0].get_xdata() == [1, 1]


def test_nothing_but_what_is_not_finite_is_refused_and_silence_is_drawn():
    times = np.arange(3.0)
    draws = {
        "response": lambda value: plot.filter_responses([100, 200], np.full((4, 2), value), FC),
        "excitation": lambda value: plot.excitation_patterns(np.full((1, 4), value), [60], FC),
        "output": lambda value: plot.tuning_curves([-20], [400, 600], [[value, value]], 500),
        "frames": lambda value: plot.cochleagram(np.full((4, 3), value), times, FC),
        "levels": lambda value: plot.level_map(np.full((3, 4), value), times, FC),
        "levels ": lambda value: plot.components(np.ones((3, 4)), np.full((3, 4), value), times),
        "loudness": lambda value: plot.loudness(value * np.ones(3), value * np.ones(3), times),
        "specific": lambda value: plot.loudness(times, times, times, np.full((3, 4), value), FC),
    }
    for name, draw in draws.items():
        with pytest.raises(ValueError, match=f"{name.strip()} has nothing to draw: every value is NaN or infinite"):
            draw(np.nan)
        draw(-np.inf if name in ("excitation", "output", "levels", "levels ") else 0.0)
    gap = [[-20.0, np.nan, -10, -5], [np.nan, np.nan, -7, -np.inf]]
    (axes,) = drawn(plot.io_functions([-30, -20, -10, 0], gap, [500, 50.25]))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["50.2 Hz", "500 Hz, least slope 0.50", "slope 1"]


@pytest.mark.parametrize("wrong", [[100, -200, 300, 400], [100, np.nan, 300, 400], [100, np.inf, 300, 400], [], 500])
def test_frequencies_that_are_none_are_refused(wrong):
    count = np.size(wrong)
    times, values = np.arange(3.0), np.ones((count, 3))
    for draw in (
        lambda: plot.filter_responses(wrong, np.ones((4, count)), FC),
        lambda: plot.tuning_curves([-20], wrong, np.ones((1, count)), 500),
        lambda: plot.excitation_patterns(np.ones((1, count)), [60], wrong),
        lambda: plot.cochleagram(values, times, wrong),
        lambda: plot.level_map(values.T, times, wrong),
        lambda: plot.loudness(times, times, times, values.T, wrong),
    ):
        with pytest.raises(
            ValueError, match=r"(must hold (frequencies in Hz, finite|at least one)|has the shape \(\))"
        ):
            draw()


def test_times_have_to_rise():
    times = [0.0, 2.0, 1.0]
    for draw in (
        lambda: plot.cochleagram(np.ones((4, 3)), times, FC),
        lambda: plot.level_map(np.ones((3, 4)), times, FC),
        lambda: plot.components(np.ones((3, 4)), np.ones((3, 4)), times),
        lambda: plot.loudness([1, 1, 1], [1, 1, 1], times),
    ):
        with pytest.raises(ValueError, match="times must hold finite times in seconds in rising order"):
            draw()


def test_one_frequency_has_an_axis_and_is_seen():
    for axes in (
        *drawn(plot.filter_responses([1000.0], [[0.5], [1]], [900.0, 1100])),
        *drawn(plot.excitation_patterns([[60.0], [50]], [60, 50], [1000.0])),
        *drawn(plot.excitation_patterns([[60.0], [50]], [60, 50], [1000.0], scale="Cam")),
        *drawn(plot.tuning_curves([-20, -10], [1000.0], [[-10], [-5]], 1000)),
    ):
        low, high = axes.get_xlim()
        assert f2erbrate(high) - f2erbrate(low) == pytest.approx(1, abs=0.1)
        assert 2 <= len(axes.get_xticks()) <= 6
        assert axes.lines[0].get_marker() == "o"


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.complex32])
def test_one_filter_of_any_type(dtype):
    response = torch.tensor([0.5, 1.0, 0.25]).to(dtype)
    response = response.conj() if response.is_complex() else response
    (axes,) = drawn(plot.filter_responses([0, 1000, 2000], response, torch.tensor(1000.0)))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [-6.0206, 0, -12.0412], atol=1e-4)


def test_names_of_excitation_patterns_stay_inside_and_many_have_a_scale():
    peak = np.array([[60.0, 40, 20, 0], [50, 30, 10, 0], [0, 10, 20, 30]])
    (axes,) = drawn(plot.excitation_patterns(peak, [100.04, 80, 60], FC))
    assert sorted(text.get_text() for text in axes.texts) == ["100 dB SPL", "60", "80"]
    inside = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
    (axes,) = drawn(plot.excitation_patterns(np.arange(0, 55, 5)[:, None] + np.zeros(4), np.arange(0, 55, 5), FC))[:1]
    (scale,) = axes.child_axes
    assert not axes.texts
    assert [label.get_text() for label in scale.get_yticklabels()] == ["0", "10", "20", "30", "40", "50"]


def test_other_scripts_are_shown_where_a_font_has_them(monkeypatch):
    from matplotlib.font_manager import FontProperties, findfont, get_font

    there = [
        set(get_font(findfont(FontProperties(family=[name]))).get_charmap()) for name in ("STIXGeneral", "DejaVu Sans")
    ]
    letter = chr(max(there[0] - there[1]))
    assert f"\\U{ord(letter):08x}" in texts_of(PICTURES["io_functions"](letter))
    monkeypatch.setattr("tamt.plot._drawing.OTHER_SCRIPTS", ("No Such Font", "STIXGeneral"))
    assert letter in texts_of(PICTURES["io_functions"](letter))


def test_joined_frames_keep_power_and_extremes():
    power = np.arange(10.0)[None, None]
    joined, times, low, high = thinned(power, np.arange(10.0), -power[0], power[0], columns=4)
    assert joined.tolist() == [[[1.0, 4.0, 7.0, 9.0]]]
    assert times.tolist() == [1.0, 4.0, 7.0, 9.0]
    assert low.tolist() == [[-2.0, -5.0, -8.0, -9.0]]
    assert high.tolist() == [[2.0, 5.0, 8.0, 9.0]]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"frames has the shape \(1, 5, 3\), but has to have \(1, 4, 3\)"):
        plot.cochleagram(np.ones((5, 3)), np.arange(3), FC)
    with pytest.raises(ValueError, match=r"response has the shape \(3, 4\), but has to have \(4, 3\)"):
        plot.filter_responses([100, 200, 300], np.ones((3, 4)), FC)
    with pytest.raises(ValueError, match=r"response has the shape \(4, 2\), but has to have \(4, 3\)"):
        plot.filter_responses([100, 200, 300], (np.ones((4, 3)), np.ones((4, 2))), FC)
    with pytest.raises(ValueError, match=r"excitation has the shape \(4, 2\), but has to have \(2, 4\)"):
        plot.excitation_patterns(np.ones((4, 2)), [60, 70], FC)
    with pytest.raises(ValueError, match=r"levels has the shape \(\), but has to have \(1,\)"):
        plot.excitation_patterns(np.ones((1, 4)), 60, FC)
    with pytest.raises(ValueError, match=r"output has the shape \(1, 2, 3\), but has to have \(2, 3\)"):
        plot.tuning_curves([-20, -10], [500, 600, 700], np.ones((1, 2, 3)), 500)
    with pytest.raises(ValueError, match=r"levels has the shape \(1, 4, 3\), but has to have \(1, 3, 4\)"):
        plot.level_map(np.ones((4, 3)), np.arange(3), FC)
    with pytest.raises(ValueError, match=r"freqs has the shape \(1, 3, 4\), but has to have \(1, 5, 4\)"):
        plot.components(np.ones((3, 4)), np.ones((3, 4)), np.arange(5))
    with pytest.raises(ValueError, match=r"levels has the shape \(1, 3, 5\), but has to have \(1, 3, 4\)"):
        plot.components(np.ones((3, 4)), np.ones((3, 5)), np.arange(3))
    short, wrong = np.ones(3), np.ones(5)
    with pytest.raises(ValueError, match=r"long_term has the shape \(5,\), but has to have \(3,\)"):
        plot.loudness(short, wrong, short, np.ones((3, 4)), FC)
    with pytest.raises(ValueError, match=r"short_term has the shape \(2, 3\), but has to have \(S,\): one sound, as"):
        plot.loudness(np.ones((2, 3)), np.ones((2, 3)), short)
    for own in ({"specific": np.ones((3, 4))}, {"fc": FC}):
        with pytest.raises(ValueError, match="specific and fc, the frequencies of its channels, have to be given"):
            plot.loudness(short, short, short, **own)
    for ears, given, wanted in ((1, 5, 3), (2, 5, 3), (3, 3, 3)):
        shapes = rf"\({ears}, {given}, 4\), but has to have \({min(ears, 2)}, {wanted}, 4\)"
        with pytest.raises(ValueError, match=f"specific has the shape {shapes}"):
            plot.loudness(short, short, short, np.ones((ears, given, 4)), FC)


NOTHING = np.zeros((4, 2))
PICTURES = {
    "filter_responses": lambda title: plot.filter_responses([100, 200], np.ones((4, 2)), FC, title=title),
    "cochleagram": lambda title: plot.cochleagram(NOTHING, [0, 1], FC, title=title, reference=title),
    "level_map": lambda title: plot.level_map(NOTHING.T, [0, 1], FC, title=title, label=title),
    "components": lambda title: plot.components(NOTHING.T, NOTHING.T, [0, 1], title=title),
    "loudness": lambda title: plot.loudness([0, 1], [0, 1], [0, 1], NOTHING.T, FC, title=title),
    "excitation_patterns": lambda title: plot.excitation_patterns(NOTHING.T, [0, 1], FC, title=title, label=title),
    "tuning_curves": lambda title: plot.tuning_curves([-20, 0], [400, 600], NOTHING[:2], 500, title=title),
    # Steep, so that its axes are narrow.
    "io_functions": lambda title: plot.io_functions([-20, 0], [[-80, -10]], [500], title=title),
}


def texts_of(figure):
    # Lays texts out as for a file, with their fonts.
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("picture", PICTURES)
def test_texts_are_shown_as_they_are(picture, monkeypatch):
    # Settings under which a text is source code, and no picture may need pyplot.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    # Of characters that the fonts lack matplotlib would warn, and the filter of warnings makes that an error.
    title = "$$ $\\foo$ \\$ 5% a_b^c {x} éω 日 \udcff\t\nend"
    with matplotlib.rc_context({"text.usetex": True, "axes.formatter.use_mathtext": True}):
        figure = PICTURES[picture](title)
    shown = texts_of(figure)
    assert "$$ $\\foo$ \\$ 5% a_b^c {x} éω \\u65e5 \\udcff\\t\nend" in shown
    assert not any("mathdefault" in text for text in shown)


LONG_NAME = "W" * 100 + "i" * 200 + ": 64 filters, 16000 Hz"


@pytest.mark.parametrize(
    ("picture", "title"), [*((picture, LONG_NAME) for picture in PICTURES), ("cochleagram", "some words " * 30)]
)
def test_long_titles_are_broken(picture, title):
    figure = PICTURES[picture](title)
    figure.draw_without_rendering()
    (text,) = (text for text in figure.findobj(Text) if text.get_text().count("\n") > 1)
    assert text.get_text().replace("\n", "") == title
    assert text.get_window_extent().x1 <= figure.bbox.x1
    assert not re.search(r"\w\n\w", text.get_text()) or " " not in title[:200]


def test_pictures_of_no_frames():
    nothing, levels = np.zeros((2, 0)), np.zeros((2, 0, 4))
    assert len(drawn(plot.cochleagram(np.zeros((2, 4, 0)), [], FC, waveform=(nothing, nothing)))) == 4
    assert len(drawn(plot.cochleagram(np.zeros((4, 0)), [], FC))) == 1
    assert len(drawn(plot.level_map(levels, [], FC))) == 2
    assert len(drawn(plot.loudness([], [], [], levels, FC))) == 3
    over_time, frame, *_ = drawn(plot.components(levels, levels, []))
    assert len(over_time.lines) == 0
    assert len(over_time.collections[0].get_offsets()) == 0
    assert "Level\n(dB SPL)" in texts_of(frame.figure)
