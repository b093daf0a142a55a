r"""
Gammatone filters, and their gain at the centre
===============================================

The filters of a :class:`tamt.GammatoneFilterbank` in frequency and in time. Every one is as wide as the auditory filter
at its centre (Glasberg and Moore, 1990), so low channels are narrow and slow, high ones wide and fast. The gain at the
centre is 0 dB, but not everywhere: near half the sampling rate, and below 30 Hz, a filter meets its own mirror image.
"""

import matplotlib.pyplot as plt
import torch

import tamt

fs = 16000
fc = [125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0]
bank = tamt.GammatoneFilterbank(fc, fs, dtype=torch.float64)
colours = plt.get_cmap("viridis")(torch.linspace(0.05, 0.85, len(fc)).numpy())

# %%
# Frequency and time
# ------------------
#
# On a logarithmic axis the filters become narrower towards high frequencies, although their width in hertz grows: it
# is :func:`tamt.audfiltbw`, 24.7 Hz and a ninth of the centre frequency. The all-pole filter has a shallow skirt
# below its centre and a steeper one above. In time it is a tone under an envelope that rises and decays, later and
# longer the narrower the filter is: causal filters need time to tell frequencies apart. The group delay at the centre
# is that of the envelope, and lies a little behind its maximum.

f = torch.logspace(1.4, 3.9, 1200, dtype=torch.float64)
magnitude = 20 * bank.frequency_response(f).abs().log10()
impulse = bank.impulse_response(fs // 10)
click = torch.zeros(fs // 10, dtype=torch.float64)
click[0] = 1
envelope = bank.envelope(click)
time = 1e3 * torch.arange(fs // 10) / fs

# Group delay at the centre: how fast the phase falls there.
around = torch.stack((bank.fc - 0.5, bank.fc + 0.5))
phase = torch.stack([bank.frequency_response(row).diagonal().angle() for row in around])
turned = torch.remainder(phase[1] - phase[0] + torch.pi, 2 * torch.pi) - torch.pi
delay = -1e3 * turned / (2 * torch.pi)  # ms, as the two frequencies are 1 Hz apart
peak = time[envelope.argmax(-1)]

erb = bank.design()["erb"]
print("centre (Hz)  width (Hz)  envelope's peak (ms)  group delay (ms)")
for row in zip(fc, erb.tolist(), peak.tolist(), delay.tolist(), strict=True):
    print("{:8.0f} {:12.1f} {:15.1f} {:17.1f}".format(*row))


def frequency_axis(axes, ticks=(31, 63, 125, 250, 500, 1000, 2000, 4000, 8000)):
    """A logarithmic axis with a tick per octave."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:.0f}" for hertz in ticks])
    axes.minorticks_off()
    axes.set_xlabel("Frequency (Hz)")


figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained", width_ratios=(1.25, 1))
for hertz, response, colour in zip(fc, magnitude, colours, strict=True):
    axes[0].plot(f, response, color=colour, linewidth=1.8)
    axes[0].text(hertz, 1.5, f"{hertz:.0f}", color=colour, ha="center", weight="bold")
frequency_axis(axes[0])
axes[0].set(xlim=(25, 8000), ylim=(-60, 6), ylabel="Gain (dB)", title="Magnitude responses")
axes[0].grid(alpha=0.25)
for row, colour in enumerate(colours):
    scale = 0.45 / envelope[row].max()
    axes[1].plot(time, row + scale * impulse[row], color=colour, linewidth=0.9)
    axes[1].plot(time, row + scale * envelope[row], color=colour, linewidth=1.8)
    axes[1].plot(delay[row], row, "|", color=colour, markersize=16, markeredgewidth=2)
axes[1].set_yticks(range(len(fc)), [f"{hertz:.0f}" for hertz in fc])
axes[1].set(xlim=(0, 60), xlabel="Time (ms)", ylabel="Centre frequency (Hz)")
axes[1].set_title("Impulse responses; bars: group delay")
axes[1].tick_params(left=False)
figure.set_label(
    "Magnitude responses of six filters from 125 Hz to 4 kHz, and their impulse responses under envelopes."
)
plt.show()

# %%
# The gain at the centre
# ----------------------
#
# A real filter has two poles, one at the centre frequency and its conjugate at minus that. Far apart, each goes its
# own way, and the gain at the centre is 0 dB. Frequencies of sampled signals are a circle: half the sampling rate is
# as far from the pole as from its conjugate, and a channel whose centre comes within a few bandwidths of it hears
# both. They cancel a little at first, and at half the sampling rate they are one pole of twice the gain, 6.02 dB. So
# it is with the lowest channels around 0 Hz. In between the error stays below 0.03 dB.
#
# **Keep centre frequencies below 0.45 of the sampling rate** where levels matter: up to 0.4 the gain is within 0.03
# dB, at 0.45 it is 0.4 dB low. ``tamt.GammatoneFilterbank((100, 8000), 16000)`` has a last channel at half the rate,
# which shows 6 dB too much.

ratio = torch.cat((torch.logspace(-3, -0.6, 240, dtype=torch.float64), torch.linspace(0.25, 0.5, 501).double()[1:]))


def gain_at_centre(centres, rate):
    """Gain in dB of channels at their own centre frequencies."""
    filters = tamt.GammatoneFilterbank(centres, rate, dtype=torch.float64)
    return 20 * filters.frequency_response(filters.fc).diagonal().abs().log10()


gain = gain_at_centre(ratio * fs, fs)
low = gain_at_centre(torch.tensor([20.0, 30.0, 50.0, 100.0], dtype=torch.float64), fs)
table = torch.tensor([0.25, 0.4, 0.45, 0.475, 0.48, 0.49, 0.495, 0.5], dtype=torch.float64)
high = {rate: gain_at_centre(table * rate, rate) for rate in (16000, 44100)}
print("at 16 kHz, 20, 30, 50, 100 Hz:", ", ".join(f"{value:.2f}" for value in low), "dB")
print("fc/fs       " + "".join(f"{value:8.3f}" for value in table))
for rate, values in high.items():
    print(f"{rate / 1000:4.1f} kHz (dB)" + "".join(f"{value:8.2f}" for value in values))

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
axes[0].semilogx(ratio * fs, gain, linewidth=2)
frequency_axis(axes[0])
axes[0].set(xlim=(16, 500), ylabel="Gain at the centre (dB)", title="Low channels at 16 kHz")
axes[0].annotate("-0.67 dB at 20 Hz", (20, low[0]), (30, -1.6), arrowprops={"arrowstyle": "-", "color": "0.5"})
axes[1].plot(ratio, gain, linewidth=2)
axes[1].axvspan(0.45, 0.5, color="C3", alpha=0.12, linewidth=0)
axes[1].set(xlim=(0.3, 0.5), ylim=(-2.5, 6.5), xlabel="Centre frequency / sampling rate", title="Near half the rate")
axes[1].annotate("6.02 dB: one pole of twice the gain", (0.5, 6.02), (0.31, 5.4), color="C3")
axes[1].text(0.448, 1.2, "keep away", color="C3", ha="right")
axes[1].set_xticks([0.3, 0.35, 0.4, 0.45, 0.5])
for panel in axes:
    panel.axhline(0, color="0.6", linewidth=0.8)
    panel.grid(alpha=0.25)
figure.set_label(
    "Gain at the centre: 0.67 dB low at 20 Hz; near half the sampling rate it dips, and then rises to 6 dB."
)
plt.show()

# %%
# The legacy form
# ---------------
#
# ``implementation='poly'`` expands the denominator of the filter, as old code does, and must keep poles at a
# magnitude of at most 0.9 for it. Every narrower channel, of a pole closer to the unit circle, becomes that wide:
# below 2.2 kHz at 16 kHz, below 6.5 kHz at 44.1 kHz. It loses level too, as the gain stays that of the narrow filter,
# and the lowest channels no longer peak at their centres. It is there to compare with such code; ``'sos'``, the
# default, has no limit.

figure, axes = plt.subplots(3, 1, figsize=(9.5, 8), layout="constrained", sharex=True, height_ratios=(1.3, 1, 1))
limits, shift = {}, {}
grid = torch.arange(1, 22050, 4, dtype=torch.float64)
for rate in (16000, 44100):
    centres = tamt.erbspacebw(60, 7000, 0.25, dtype=torch.float64)
    exact = tamt.GammatoneFilterbank(centres, rate, dtype=torch.float64)
    legacy = tamt.GammatoneFilterbank(centres, rate, dtype=torch.float64, implementation="poly")
    power = legacy.frequency_response(grid[grid <= rate / 2]).abs().square()
    width = 4 * power.sum(-1) / power.amax(-1)  # equivalent rectangular, of bins of 4 Hz
    loss = 10 * power.amax(-1).log10()
    shift[rate] = grid[power.argmax(-1)] / centres
    limits[rate] = centres[exact.poles.abs() > 0.9][-1].item()
    axes[0].loglog(centres, width, label=f"'poly' at {rate / 1000:g} kHz", linewidth=2)
    axes[1].plot(centres, loss, linewidth=2)
    axes[2].plot(centres, shift[rate], linewidth=2)
axes[0].loglog(centres, tamt.audfiltbw(centres), color="0.4", linestyle="--", label="'sos', and the ear")
axes[1].axhline(0, color="0.4", linestyle="--")
axes[0].set(ylabel="Width (Hz)", title="Equivalent rectangular bandwidth")
axes[0].set_yticks([50, 100, 200, 500, 1000], ["50", "100", "200", "500", "1k"])
axes[0].minorticks_off()
axes[0].legend(loc="lower right")
axes[1].set(ylabel="Gain at the peak (dB)", title="What is left of the level", xlim=(60, 7000), ylim=(-105, 10))
axes[2].axhline(1, color="0.4", linestyle="--")
axes[2].set(ylabel="Peak / centre", title="Where the channel answers most", ylim=(0, 1.7))
frequency_axis(axes[2], (63, 125, 250, 500, 1000, 2000, 4000))
for panel in axes:
    panel.grid(alpha=0.25)
for rate in limits:
    print(f"{rate / 1000:g} kHz: too wide up to {limits[rate]:.0f} Hz", end="")
    print(f", peaks at {shift[rate].min():.2f} to {shift[rate].max():.2f} of the centre frequency")
figure.set_label(
    "Width, level and peak of the legacy form: low channels are too wide, too faint and off their centres."
)
plt.show()

# %%
# References
# ----------
#
# * \B. R. Glasberg, B. C. J. Moore, "Derivation of auditory filter shapes from notched-noise data", Hearing Research
#   47, 1990.
# * \R. F. Lyon, "All-pole models of auditory filtering", in Diversity in Auditory Mechanics, 1997.
# * \R. D. Patterson et al., "An efficient auditory filterbank based on the gammatone function", 1987.
#
# Next: :doc:`/gallery/filters/cochleagram_and_mel`; :doc:`/conformance` holds the filters against others', and
# :doc:`/guide/training` learns them.

# sphinx_gallery_start_ignore
# What the text above says.
assert (erb / tamt.audfiltbw(bank.fc) - 1).abs().max() < 1e-6
assert (erb.diff() > 0).all()
assert (peak.diff() < 0).all()
assert (delay.diff() < 0).all()
assert (delay >= peak).all()
assert (delay < 1.5 * peak).all()
assert abs(gain[-1] - 6.0206) < 1e-3
assert abs(low[0] + 0.67) < 0.01
assert low[1].abs() < 0.07
assert gain[(ratio * fs >= 50) & (ratio <= 0.4)].abs().max() < 0.03
for values in high.values():
    assert abs(values[2] + 0.4) < 0.05
    assert abs(values[-1] - 6.02) < 0.01
skirt = bank.frequency_response([500.0, 2000.0])[3].abs()
assert skirt[0] > skirt[1]
assert 2100 < limits[16000] < 2300
assert 6200 < limits[44100] < 6600
assert shift[16000][0] > 1.1 or shift[16000][0] < 0.9
assert shift[44100][0] > 1.1 or shift[44100][0] < 0.9
# sphinx_gallery_end_ignore
