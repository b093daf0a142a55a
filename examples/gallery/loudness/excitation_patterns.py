r"""
Excitation patterns of tones
============================

How a tone of 1 kHz excites the auditory filters at levels from 20 to 100 dB SPL, in the models of two loudness meters:
:class:`tamt.Moore2016ExcitationPattern`, and the chain of :class:`tamt.MultiResolutionFFT`,
:class:`tamt.ERBIntegration` and :class:`tamt.ExcitationPattern`. They disagree on which side a loud tone spreads to,
and only the first has it as the ear does.
"""

import matplotlib.pyplot as plt
import torch

import tamt
import tamt.plot

fs = 32000
levels = torch.arange(20.0, 101.0, 10, dtype=torch.float64)  # dB SPL
time = torch.arange(fs // 2, dtype=torch.float64) / fs
pressure = tamt.spl.full_scale_pascal(levels)[:, None] * torch.sin(2 * torch.pi * 1000 * time)  # Pa

# %%
# Sound to excitation
# -------------------
#
# The sound is a tone of 1 kHz in both ears, without an outer and middle ear. Each model has its own spectrum: the first
# lists the relevant components of frames of both ears, the second gives a power spectral density and its level in
# bands. Here are the frames in the middle of the tone.

spectrum = tamt.Moore2016Spectrum(fs, segment_duration=50, db_max=tamt.spl.pascal2spl(0.5**0.5), dtype=torch.float64)
pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10.0, dtype=torch.float64)
freqs, components, _, _ = spectrum(pressure[:, None].expand(-1, 2, -1))
moore = pattern(freqs[:, 4], components[:, 4])

density, bins = tamt.MultiResolutionFFT(fs)(pressure)
bands = tamt.ERBIntegration(fs)(density, bins)
spread = tamt.ExcitationPattern(fs)
glasberg = spread(bands)[:, density.shape[1] // 2]

patterns = {
    "Moore2016ExcitationPattern": (pattern.fc_channels, moore),
    "ExcitationPattern, after MultiResolutionFFT": (spread.fc_erb, glasberg),
}

# %%
# Which side
# ----------
#
# In hearing, a loud tone masks tones above it far more than tones below it, and the more so the louder it is. This
# upward spread comes from filters whose low-frequency side becomes shallower with level (Glasberg and Moore, 1990).
# ``Moore2016ExcitationPattern`` has it: towards low frequencies all patterns are equally steep, towards high
# frequencies they flatten out.

figure = tamt.plot.excitation_patterns(
    moore, levels, pattern.fc_channels, title="Moore2016ExcitationPattern: a tone of 1 kHz"
)
figure.set_label("Excitation patterns of a tone at nine levels, which spread up in frequency.")

# %%
# **The other model has the reverse.** ``ExcitationPattern`` follows the documents that tamt was built by, and their
# formula: at 60 dB SPL a band loses 27 dB per ERB towards high frequencies and 11 towards low ones. At higher levels it
# is less, down to 10 dB per ERB, which is all there is towards low frequencies from 65 dB SPL up. A band adds nothing
# where it would be more than 50 dB down. That is a convention of the documents. It is neither Glasberg and Moore's
# pattern nor what ears do. Where the side matters, as for masking, take ``Moore2016ExcitationPattern``.

figure = tamt.plot.excitation_patterns(
    glasberg, levels, spread.fc_erb, title="ExcitationPattern, after MultiResolutionFFT: a tone of 1 kHz"
)
figure.set_label("Excitation patterns of a tone at nine levels, which spread down in frequency.")

# %%
# The numbers below are of tones through the spectrum of each model, whose windows spread a tone too. A single component
# of 80 dB at 1 kHz, with no spectrum before the filters, falls off more steeply towards low frequencies.


def fall(fc, excitation, erbs):
    """How far below its peak a pattern is at a distance from 1 kHz, in dB."""
    at = tamt.f2erbrate(1000.0) + erbs
    return excitation.max() - excitation[(tamt.f2erbrate(fc) - at).abs().argmin()]


print("dB below the peak, ERBs from 1 kHz:  -4     -2      2      4")
for title, (fc, excitation) in patterns.items():
    for row in (3, 6, 8):
        down = [f"{fall(fc, excitation[row], erbs):6.1f}" for erbs in (-4, -2, 2, 4)]
        print(f"{title.split(',')[0]:27} {levels[row]:3.0f} dB: {' '.join(down)}")
alone = pattern(torch.tensor([1000.0], dtype=torch.float64), torch.tensor([80.0], dtype=torch.float64))
down = [f"{fall(pattern.fc_channels, alone, erbs):6.1f}" for erbs in (-4, -2, 2, 4)]
print(f"one component of 80 dB instead:     {' '.join(down)}")
print("bands before spreading, 80 dB:", round(bands[6, density.shape[1] // 2].max().item(), 1), "dB SPL")

# %%
# How far
# -------
#
# By default ``Moore2016ExcitationPattern`` leaves out components further than four octaves from a channel, as the
# documents have it. AMT, with which the pattern agrees at ten octaves, has no such limit. For soft tones this is
# nothing. A component of 110 dB at 100 Hz reaches the channels above 1.6 kHz with 78 dB and less, and there the
# default gives the floor of -120 dB. On the right is what that makes of loudness: the areas under the curves are 29 %
# apart. ``spreading_limit_octaves=10`` has no limit in the range of hearing; :class:`tamt.Moore2016Loudness` uses it.


def erb_rate(hertz):
    """Position on the ERB-rate scale."""
    return tamt.f2erbrate(torch.as_tensor(hertz, dtype=torch.float64)).numpy()


def erb_axis(axes):
    """Axis on the ERB-rate scale, with a tick per octave."""
    ticks = [125, 250, 500, 1000, 2000, 4000, 8000]
    axes.set_xticks(erb_rate(ticks), [f"{hertz // 1000}k" if hertz >= 1000 else str(hertz) for hertz in ticks])
    axes.set_xlim(erb_rate(50), erb_rate(15000))


low = torch.tensor([100.0], dtype=torch.float64)
loud = torch.tensor([110.0], dtype=torch.float64)
specific = tamt.Moore2016SpecificLoudness(dtype=torch.float64)
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
reaches, sones = {}, {}
for octaves, style in ((10.0, {"color": "C0"}), (4.0, {"color": "C3", "linestyle": "--"})):
    limited = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=octaves, dtype=torch.float64)
    reaches[octaves] = limited(low, loud)
    loudness = specific(limited.excitation(low, 10 ** (loud / 10)))
    sones[octaves] = 0.25 * loudness.sum()
    axes[0].plot(erb_rate(limited.fc_channels), reaches[octaves], linewidth=2, label=f"{octaves:.0f} octaves", **style)
    axes[1].plot(erb_rate(limited.fc_channels), loudness, linewidth=2, label=f"{octaves:.0f} octaves", **style)
for panel in axes:
    erb_axis(panel)
    panel.set_xlabel("Frequency of the channel (Hz)")
    panel.grid(alpha=0.25)
axes[0].set(ylim=(-130, 120), ylabel="Excitation (dB)", title="A component of 110 dB at 100 Hz")
axes[1].set(ylim=(0, None), ylabel="Specific loudness (sone/Cam)", title="What it adds to loudness")
axes[0].legend(title="Limit", loc="lower left")
figure.set_label(
    "A strong tone at 100 Hz with and without a limit of four octaves: excitation, and the specific loudness it adds."
)
plt.show()
beyond = int((pattern.fc_channels > 1640).nonzero()[0])
for octaves in (10.0, 4.0):
    there = f"{reaches[octaves][beyond]:.1f} dB at {pattern.fc_channels[beyond]:.0f} Hz"
    print(f"{octaves:2.0f} octaves: {there}, {sones[octaves]:.1f} sone in one ear")

# %%
# References
# ----------
#
# * \B. R. Glasberg, B. C. J. Moore, "Derivation of auditory filter shapes from notched-noise data", Hearing Research
#   47, 1990.
# * \B. R. Glasberg, B. C. J. Moore, "A model of loudness applicable to time-varying sounds", J. Audio Eng. Soc. 50,
#   2002.
# * \B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher, "A loudness model for time-varying sounds
#   incorporating binaural inhibition", Trends in Hearing 20, 2016.
#
# Next: :doc:`/gallery/loudness/stages_of_loudness` goes on from excitation to loudness; :doc:`/guide/loudness` has both
# chains in code, :doc:`/conformance` their numbers.

# sphinx_gallery_start_ignore
# What the text above says.
fc = pattern.fc_channels
for row in (6, 8):
    assert fall(fc, moore[row], -2) > fall(fc, moore[row], 2) + 10
    assert fall(spread.fc_erb, glasberg[row], 2) > fall(spread.fc_erb, glasberg[row], -2) + 2
assert abs(fall(fc, moore[8], -2) - fall(fc, moore[4], -2)) < 1
assert fall(fc, moore[4], 2) > fall(fc, moore[8], 2) + 5
assert fall(fc, alone, -4) > fall(fc, moore[6], -4) + 5
slope = [spread.design()[name] for name in ("upper_slope_base", "lower_slope_base", "lower_slope_per_db")]
assert slope[:2] == [27, 11]
assert abs(60 + (slope[1] - 10) / slope[2] - 65) < 1e-3
assert abs(reaches[10.0][beyond] - 78.3) < 0.2
assert reaches[4.0][beyond] == -120
assert abs(1 - sones[4.0] / sones[10.0] - 0.29) < 0.01
# sphinx_gallery_end_ignore
