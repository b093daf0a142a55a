r"""
Tuning changes with level
=========================

A channel of a :class:`tamt.DRNLFilterbank` is sharply tuned to faint tones. To loud ones it is broader, and tuned to a
lower frequency: there the linear path prevails, whose filter is wider and sits lower. The same tones, at levels from 0
to 100 dB SPL, give the response over frequency at fixed levels, tuning curves at fixed outputs, and the quality factor
of the channel over level.
"""

import math

import matplotlib.pyplot as plt
import torch

import tamt
import tamt.plot
from tamt.spl import STAPES_LEVEL

fs = 48000
levels = torch.arange(0.0, 101.0, 5)  # dB SPL

# %%
# Tones of all frequencies and levels
# -----------------------------------
#
# Each channel hears tones from two octaves below its frequency to one above. ``tone_responses`` gives the component of
# its output at the frequency of the tone, when the onset is over: the broken stick makes odd harmonics too, and the
# third of a loud tone at a third of the channel's frequency would look like tuning to that tone. It takes the levels of
# the stapes in dB re 1 m/s: those in dB SPL plus ``STAPES_LEVEL``.

channels = (500.0, 1000.0, 4000.0)
measured = {}
for fc in channels:
    f = fc * 2 ** torch.linspace(-2, 1, 145, dtype=torch.float64)
    bank = tamt.DRNLFilterbank([fc], fs, dtype=torch.float32)
    measured[fc] = f, bank.tone_responses(levels + STAPES_LEVEL, f, fc).double() - STAPES_LEVEL


def tuning(f, curve, below=10.0):
    """Best frequency of a curve, and its width ``below`` dB under the peak, in Hz."""
    best = int(curve.argmax())
    before, peak, after = curve[best - 1 : best + 2]
    apex = 0.5 * (before - after) / (before - 2 * peak + after)  # of a parabola through the three highest points
    left = int((curve[:best] < curve[best] - below).nonzero()[-1])
    right = best + int((curve[best:] < curve[best] - below).nonzero()[0])

    def crossing(low, high):
        share = (curve[best] - below - curve[low]) / (curve[high] - curve[low])
        return f[low] + share * (f[high] - f[low])

    width = crossing(right, right - 1) - crossing(left, left + 1)
    return (f[best] * (f[best + 1] / f[best]) ** apex).item(), width.item()


shape = {fc: torch.tensor([tuning(f, curve) for curve in output]) for fc, (f, output) in measured.items()}
quality = {fc: found[:, 0] / found[:, 1] for fc, found in shape.items()}
octaves = {fc: (found[:, 0] / fc).log2() for fc, found in shape.items()}
print("level (dB SPL)         " + "".join(f"{level:8.0f}" for level in levels[::4]))
for fc in channels:
    print(f"{fc:5.0f} Hz: Q10          " + "".join(f"{value:8.2f}" for value in quality[fc][::4]))
    print("          best (oct)   " + "".join(f"{value:8.2f}" for value in octaves[fc][::4]))

# %%
# The output at fixed levels
# --------------------------
#
# Iso-level curves: the output at fixed levels, less the level itself, a gain. Up to 20 dB SPL the curves lie on each
# other; then the peak sinks, while tones far below the channel's frequency, which the linear path alone passes, keep
# their gain. What is left is a broad filter that peaks lower.

fc = 4000.0
f, output = measured[fc]
shown = slice(None, None, 4)
figure = tamt.plot.tuning_curves(
    levels[shown] + STAPES_LEVEL, f, output[shown] + STAPES_LEVEL, fc, title="4-kHz channel: gain at fixed levels"
)
figure.set_label("Gain of the 4-kHz channel over frequency at six levels: its peak sinks, broadens and shifts down.")

# %%
# The level for a fixed output
# ----------------------------
#
# What a physiologist measures: the level that a tone needs for a given output. The outputs are those of tones at the
# channel's frequency of 10, 30, 50, 70 and 90 dB SPL. From 30 to 70 dB the tip of the tuning curve moves by 40 dB, its
# tail at 1.8 kHz by 12: what is compressed at the tip is linear in the tail. So the curves become shallow.

at = int((f - fc).abs().argmin())
wanted = output[[2, 6, 10, 14, 18], at]  # for 10, 30 ... 90 dB SPL
needed = torch.full((len(wanted), len(f)), math.nan, dtype=torch.float64)
for column, growth in enumerate(output.T):
    for row, goal in enumerate(wanted):
        above = (growth >= goal - 1e-9).nonzero()
        if len(above) and above[0] > 0:
            k = int(above[0])
            needed[row, column] = levels[k - 1] + 5 * (goal - growth[k - 1]) / (growth[k] - growth[k - 1])

tail = int((f - 1800).abs().argmin())
print("level needed at 4 kHz:", [round(level, 1) for level in needed[:4, at].tolist()], "dB SPL")
print(f"at {f[tail]:.0f} Hz:", [round(level, 1) for level in needed[:4, tail].tolist()], "dB SPL")

colours = plt.get_cmap("plasma")(torch.linspace(0.0, 0.85, len(wanted)).numpy())
figure, axes = plt.subplots(figsize=(9, 4.8), layout="constrained")
for colour, curve, level in zip(colours, needed, (10, 30, 50, 70, 90), strict=True):
    axes.plot(f, curve, color=colour, linewidth=2, label=f"{level} dB SPL")
    least = int(torch.where(curve.isnan(), math.inf, curve).argmin())
    axes.plot(f[least], curve[least], "o", color=colour, markersize=5)
axes.set_xscale("log")
axes.set_xticks([1500, 2000, 3000, 4000, 6000], ["1.5k", "2k", "3k", "4k", "6k"])
axes.minorticks_off()
axes.set(xlabel="Frequency of the tone (Hz)", xlim=(1400, 6700), ylabel="Level of the tone (dB SPL)", ylim=(0, 100))
axes.set_title("Tuning curves of the 4-kHz channel: level for a fixed output")
axes.grid(alpha=0.25)
axes.axvline(fc, color="0.6", linewidth=0.8, linestyle=":")
axes.legend(title="Output as of 4 kHz at", loc="lower left")
figure.set_label("Tuning curves of the 4-kHz channel at five outputs, which become shallow and shift down with level.")
plt.show()

# %%
# Width and best frequency
# ------------------------
#
# The quality factor :math:`Q_{10}`, the best frequency over the width 10 dB below the peak, falls to a little more
# than half over 100 dB. The best frequency falls with it. On the basilar membrane of the chinchilla's base it falls
# by up to half an octave (Ruggero et al., 1997); in this model by no more than a quarter.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for fc, colour in zip(channels, plt.get_cmap("viridis")([0.1, 0.45, 0.8]), strict=True):
    axes[0].plot(levels, quality[fc], color=colour, linewidth=2)
    axes[1].plot(levels, octaves[fc], color=colour, linewidth=2)
    axes[0].text(2, quality[fc][0] + 0.08, f"{fc:.0f} Hz", color=colour, weight="bold")
    axes[1].text(101, octaves[fc][-1], f"{fc:.0f} Hz", color=colour, weight="bold", va="center")
axes[0].set(xlim=(0, 100), ylim=(0, 5), ylabel="$Q_{10}$", title="Sharpness of the response at fixed levels")
axes[1].set(xlim=(0, 115), ylim=(-0.3, 0.1), ylabel="Octaves", title="Best frequency re the channel's")
axes[1].set_xticks(range(0, 101, 20))
for panel in axes:
    panel.set_xlabel("Level of the tone (dB SPL)")
    panel.grid(alpha=0.25)
figure.set_label("Sharpness and best frequency of three channels over level: both fall.")
plt.show()

# %%
# References
# ----------
#
# * \R. Meddis, L. P. O'Mard, E. A. Lopez-Poveda, "A computational algorithm for computing nonlinear auditory frequency
#   selectivity", J. Acoust. Soc. Am. 109, 2001.
# * \M. A. Ruggero et al., "Basilar-membrane responses to tones at the base of the chinchilla cochlea", J. Acoust. Soc.
#   Am. 101, 1997.
#
# Next: :doc:`/gallery/filters/two_tone_suppression`; :doc:`/guide/tuning` says which of the two DRNL filterbanks is
# faster where.

# sphinx_gallery_start_ignore
# What the text above says.
assert (output[4] - output[0] - 20).abs().max() < 1e-2
assert (needed[:4, at] - torch.tensor([10, 30, 50, 70])).abs().max() < 0.1
assert abs(needed[3, tail] - needed[1, tail] - 12) < 1
assert all(0.45 < quality[fc][-1] / quality[fc][0] < 0.6 for fc in channels)
assert all(-0.25 < octaves[fc][-1] < octaves[fc][0] < 0.05 for fc in channels)
assert all((quality[fc].diff() < 0.01).all() for fc in channels)
# sphinx_gallery_end_ignore
