"""
Loudness of tones
=================

How loud is a tone? That depends on its level, but not in proportion: the ear compresses, and ten decibels more are
about twice as loud. It also depends on frequency, as the ear hears best where the ear canal resonates. Both come out of
:class:`tamt.Moore2016Loudness`, the model of ISO 532-3, which takes sound pressure in pascal and gives loudness in
sone.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch

import tamt

fs, seconds = 32000, 0.3
time = torch.arange(int(fs * seconds)) / fs
ramp = (torch.minimum(time, time[-1] - time) / 0.02).clamp(max=1)  # of 20 ms: edges of a tone are clicks
model = tamt.Moore2016Loudness(field="free", hop=10)


def steady_loudness(frequencies, levels):
    """Loudness in sone of tones (N,) at levels (N,) in dB SPL, with both ears: the short-term loudness reached."""
    pressure = tamt.spl.full_scale_pascal(levels)[:, None]
    tones = ramp * pressure * torch.sin(2 * torch.pi * frequencies[:, None] * time)
    with torch.no_grad():
        return model(tones[:, None]).short_term[:, 20]  # (N, 1, T) are N sounds that both ears hear; frame 20 is 200 ms


# %%
# Growth of loudness
# ------------------
#
# One sone is the loudness of a tone of 1 kHz at 40 dB SPL. From there on, 10 dB more make it about twice as loud, as
# the dotted line says; below, loudness falls much faster, down to the threshold of hearing. Where the threshold is
# higher, as at 100 Hz, loudness catches up above it and grows more steeply. The loudness level in phon,
# :func:`tamt.sone2phon`, is the level of the tone of 1 kHz that is as loud: a tone of 1 kHz at 60 dB SPL has 60 phon.

levels = torch.arange(0.0, 111, 5)
tones = {"100 Hz": 100.0, "1 kHz": 1000.0, "4 kHz": 4000.0}
growth = {name: steady_loudness(torch.full_like(levels, hertz), levels) for name, hertz in tones.items()}
phon = {name: tamt.sone2phon(sone) for name, sone in growth.items()}
for level in (20, 40, 60, 80):
    sones = ", ".join(f"{name} {sone[level // 5]:.2f} sone" for name, sone in growth.items())
    print(f"{level} dB SPL: {sones}; at 1 kHz {phon['1 kHz'][level // 5]:.1f} phon")

# %%
# Equal loudness
# --------------
#
# For 25 frequencies the model hears tones at levels from 0 to 110 dB SPL, and the level is read off, by interpolation,
# at which they are as loud as the tone of 1 kHz at 20, 40, 60 and 80 dB SPL. These are equal-loudness contours. They
# are lowest at 3 to 4 kHz, and closer together at low frequencies. They are the model's own: those that were measured,
# in ISO 226, lie higher at low frequencies.

frequencies = torch.logspace(math.log10(50), math.log10(12500), 25)
heights = torch.arange(0.0, 111, 10)
heard = steady_loudness(frequencies.repeat_interleave(len(heights)), heights.repeat(len(frequencies)))
heard = tamt.sone2phon(heard).unflatten(0, (len(frequencies), len(heights)))
contours = {level: [np.interp(level, row, heights) for row in heard] for level in (20, 40, 60, 80)}

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
colours = plt.colormaps["viridis"]([0.75, 0.1, 0.45])
for (name, sone), colour in zip(growth.items(), colours, strict=True):
    left.semilogy(levels, sone, color=colour, linewidth=2, label=name)
left.semilogy(levels[6:], 2 ** ((levels[6:] - 40) / 10), "k:", label="doubling every 10 dB")
left.plot(40, 1, "o", color=colours[1], label="1 sone: 1 kHz at 40 dB SPL")
left.set(xlim=(0, 110), ylim=(1e-3, 300), xlabel="Level (dB SPL)", ylabel="Loudness (sone)", title="Growth of loudness")
left.set_yticks([0.001, 0.01, 0.1, 1, 10, 100], ["0.001", "0.01", "0.1", "1", "10", "100"])
left.grid(alpha=0.3)
left.legend(loc="lower right")

for (level, contour), colour in zip(contours.items(), plt.colormaps["plasma"]([0.0, 0.3, 0.55, 0.75]), strict=True):
    right.semilogx(frequencies, contour, color=colour, linewidth=2)
    right.annotate(f"{level} phon", (1000, level), (0, 5), textcoords="offset points", color=colour, ha="center")
right.set_xticks([63, 125, 250, 500, 1000, 2000, 4000, 8000], ["63", "125", "250", "500", "1k", "2k", "4k", "8k"])
right.minorticks_off()
right.set(xlim=(50, 12500), ylim=(0, 110), xlabel="Frequency (Hz)", ylabel="Level (dB SPL)", title="Equal loudness")
right.grid(alpha=0.3)
fig.set_label(
    "Loudness of tones of 100 Hz, 1 kHz and 4 kHz over level, and equal-loudness contours from 20 to 80 phon."
)
plt.show()

# %%
# References
# ----------
#
# * ISO 532-3, Acoustics - Methods for calculating loudness - Part 3: Moore-Glasberg-Schlittenlacher method.
# * ISO 226, Acoustics - Normal equal-loudness-level contours.
#
# Next: :doc:`/guide/loudness` is the guide to the models, with a table of tones beside the standard's;
# :doc:`/guide/levels` is on dB SPL and pascal.

# sphinx_gallery_start_ignore
# What the text above says.
sone = growth["1 kHz"]
assert abs(sone[8] - 1) < 0.01
ratios = sone[10::2] / sone[8:-2:2]  # of 10 dB, from 40 dB SPL on
assert ratios.min() > 1.8
assert ratios.max() < 2.3
assert sone[4] / sone[2] > 4  # from 10 to 20 dB SPL
assert abs(phon["1 kHz"][12] - 60) < 0.1
low = growth["100 Hz"]
assert (low[1:] < sone[1:]).all()
assert (low[8:] / sone[8:]).diff().min() > 0
for contour in contours.values():
    assert 2500 < frequencies[int(np.argmin(contour))] < 4500
assert contours[80][3] - contours[20][3] < 55 < 60 - 0.5  # at 100 Hz, against 60 dB at 1 kHz
# sphinx_gallery_end_ignore
