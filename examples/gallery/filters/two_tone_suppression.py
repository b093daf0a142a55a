r"""
Two-tone suppression
====================

A tone can make the ear's response to another one smaller, although it adds to the sound. It is a mark of the active
cochlea: auditory-nerve fibres show it (Sachs and Kiang, 1968), and so does the basilar membrane (Ruggero, Robles and
Rich, 1992). A :class:`tamt.DRNLFilterbank` has it from its broken stick. What is measured is the component of the
output at the frequency of a faint probe tone, with and without the suppressor.
"""

import matplotlib.pyplot as plt
import torch

import tamt

fs = 48000
probe, probe_level = 4000.0, 40.0  # Hz, the channel's frequency; dB SPL
bank = tamt.DRNLFilterbank([probe], fs)


def tone(hertz, level, time):
    """Velocity of the stapes for a tone of a level in dB SPL."""
    return tamt.spl.stapes_velocity(level) * torch.sin(2 * torch.pi * hertz * time)


def at_probe(y, time):
    """Amplitude of the component of ``y`` (..., T) at the probe's frequency, for whole periods of all components."""
    return 2 * (y * torch.exp(-2j * torch.pi * probe * time)).mean(-1).abs()


# %%
# One suppressor
# --------------
#
# A probe of 40 dB SPL sounds all the time, for 30 ms joined by a tone of 70 dB SPL at 4.75 kHz. The component at the
# probe's frequency falls by 20 dB. Even the whole output, the louder tone included, becomes smaller, by 3 dB.

time = torch.arange(round(0.08 * fs), dtype=torch.float64) / fs
gate = ((time > 0.025) & (time < 0.055)).double()
sound = tone(probe, probe_level, time) + gate * tone(4750.0, 70.0, time)
output = bank(sound)[0]
width = round(0.008 * fs)  # a Hann window of 8 ms is deaf to a tone 750 Hz away
window = torch.hann_window(width, dtype=torch.float64)
window = window / window.sum()


def track(values):
    """Moving mean of a signal in dB; the middle of the window is in the middle of ``width`` samples."""
    parts = torch.view_as_real(values.to(torch.complex128)).T[:, None]
    smooth = torch.nn.functional.conv1d(parts, window[None, None])[:, 0]
    return 20 * torch.linalg.vector_norm(smooth, dim=0).log10()


component = track(2 * output * torch.exp(-2j * torch.pi * probe * time))
whole = track(2 * output.square()) / 2
middle = 1e3 * (time[: len(component)] + width / 2 / fs)
alone = component[(middle > 15) & (middle < 20)].mean()
during = component[(middle > 40) & (middle < 50)].mean()
grown = whole[(middle > 40) & (middle < 50)].mean() - whole[(middle > 15) & (middle < 20)].mean()
print(f"with the suppressor the output changes by {grown:.1f} dB, the probe's component by {during - alone:.1f} dB")

# %%
# All suppressors
# ---------------
#
# Tones from 1 to 8 kHz at levels from 20 to 100 dB SPL, all of them one batch. Their frequencies are multiples of 50
# Hz, so that within 20 ms no component leaks into that of the probe; those are left out whose low harmonics, folded
# at half the sampling rate, would fall on it.
#
# Close to its frequency a suppressor has to be about as loud as the probe. Further away it has to be louder, as it
# must first pass the filter before the broken stick: the borders of suppression look like a tuning curve. The linear
# path keeps the probe from vanishing, as it loses nothing.

steps = 2 * torch.unique((10 * 2 ** torch.linspace(0, 3, 91)).round()) + 1
frequencies = 50.0 * steps[(steps % 5 != 0) & (steps < 160)]
levels = torch.arange(20.0, 101.0, 2)
time = torch.arange(round(0.04 * fs), dtype=torch.float64) / fs
last = slice(len(time) // 2, None)


def suppression(bank):
    """Change (levels, frequencies) of the probe's component by suppressors, in dB."""
    sounds = tone(probe, probe_level, time) + tone(frequencies[:, None], levels[:, None, None], time)
    with_suppressor = at_probe(bank(sounds)[..., 0, last], time[last])
    return 20 * (with_suppressor / at_probe(bank(tone(probe, probe_level, time))[0, last], time[last])).log10()


change = suppression(bank)
print(len(frequencies), "frequencies,", len(levels), "levels; the deepest:", f"{change.min():.1f} dB")

figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained", width_ratios=(1, 1.3))
axes[0].plot(middle, whole - alone, color="0.6", linewidth=2)
axes[0].plot(middle, component - alone, color="C3", linewidth=2.5)
axes[0].text(40, grown + 1, "whole output", color="0.5", ha="center")
axes[0].text(40, during - alone - 2.5, "component at 4 kHz", color="C3", weight="bold", ha="center")
axes[0].axvspan(25, 55, color="C0", alpha=0.1, linewidth=0)
axes[0].text(40, 3.2, "suppressor on", color="C0", ha="center")
axes[0].set(xlabel="Time (ms)", ylabel="Output (dB re probe alone)", title="Probe 40 dB, suppressor 4.75 kHz, 70 dB")
axes[0].set(xlim=(10, 70), ylim=(-26, 5))
axes[0].grid(alpha=0.25)
mesh = axes[1].pcolormesh(frequencies, levels, change, cmap="magma", vmin=-35, vmax=0, shading="nearest")
axes[1].contour(frequencies, levels, change, levels=[-20, -10, -1], colors=["#888888"], linewidths=1)
axes[1].plot(probe, probe_level, "o", color="#55bbff", markersize=7)
axes[1].set_xscale("log")
axes[1].set_xticks([1000, 2000, 3000, 4000, 6000, 8000], ["1k", "2k", "3k", "4k", "6k", "8k"])
axes[1].minorticks_off()
axes[1].set(xlabel="Frequency of the suppressor (Hz)", ylabel="Level of the suppressor (dB SPL)")
axes[1].set_title("Change of the probe (dot); lines at -1, -10 and -20 dB")
figure.colorbar(mesh, ax=axes[1], label="dB")
figure.set_label(
    "A probe falls by 20 dB while a suppressor sounds; a map of that change over the frequency and level of it."
)
plt.show()

# %%
# Growth
# ------
#
# Once it has begun, suppression grows by about 0.7 dB per dB of the suppressor, whichever side it comes from: where
# the suppressor alone sets the working point of the broken stick, a small probe beside it has a gain that falls by
# :math:`1 - c`, 0.75 dB per dB. In the auditory nerve suppressors below the channel's frequency grow faster than
# those above (Delgutte, 1990). This model does not have that.
#
# An ear without the active mechanism (``subject="HIx"``) has the linear path alone, and no suppression whatever.

impaired = suppression(tamt.DRNLFilterbank([probe], fs, subject="HIx"))
picked = [int((frequencies - hertz).abs().argmin()) for hertz in (1650, 2450, 5750, 7450)]
grows = []
figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained")
for column, colour in zip(picked, plt.get_cmap("plasma")([0.0, 0.3, 0.6, 0.8]), strict=True):
    curve = change[:, column]
    steady = (curve < -5) & (curve > -17)
    grows.append(((curve[steady][-1] - curve[steady][0]) / (2 * (steady.sum() - 1))).item())
    axes.plot(levels, curve, color=colour, linewidth=2, label=f"{frequencies[column]:.0f} Hz")
    print(f"{frequencies[column]:.0f} Hz: {-grows[-1]:.2f} dB per dB between 5 and 17 dB of suppression")
axes.plot(levels, impaired[:, picked[0]], color="0.5", linewidth=2, linestyle="--", label="HIx, all of them")
axes.set(xlabel="Level of the suppressor (dB SPL)", ylabel="Change of the probe (dB)", xlim=(20, 100), ylim=(-32, 2))
axes.set_title("Suppression of a probe of 40 dB SPL at 4 kHz")
axes.grid(alpha=0.25)
axes.legend(title="Suppressor", loc="lower left")
figure.set_label(
    "Change of the probe over the suppressor's level at four frequencies; without outer hair cells there is none."
)
plt.show()

# %%
# References
# ----------
#
# * \B. Delgutte, "Two-tone rate suppression in auditory-nerve fibers: dependence on suppressor frequency and level",
#   Hearing Research 49, 1990.
# * \R. Meddis, L. P. O'Mard, E. A. Lopez-Poveda, "A computational algorithm for computing nonlinear auditory frequency
#   selectivity", J. Acoust. Soc. Am. 109, 2001.
# * \M. A. Ruggero, L. Robles, N. C. Rich, "Two-tone suppression in the basilar membrane of the cochlea: mechanical
#   basis of auditory-nerve rate suppression", J. Neurophysiol. 68, 1992.
# * \M. B. Sachs, N. Y.-S. Kiang, "Two-tone inhibition in auditory-nerve fibers", J. Acoust. Soc. Am. 43, 1968.
#
# Next: :doc:`/gallery/filters/normal_and_impaired`; :doc:`/guide/levels` is on the levels that the filters take.

# sphinx_gallery_start_ignore
# What the text above says.
assert -21 < during - alone < -18.5
assert -4 < grown < -2.5
assert change.max() < 1
assert -35 < change.min() < -30
nearest = int((frequencies - probe).abs().argmin())
first = [levels[(change[:, column] < -1).nonzero()[0, 0]].item() for column in (*picked, nearest)]
assert first[0] > first[1] > 55
assert first[3] > first[2] > 50
assert abs(first[4] - probe_level) < 6
assert all(-0.75 < growth < -0.63 for growth in grows)
assert impaired.abs().max() < 1e-2
# sphinx_gallery_end_ignore
