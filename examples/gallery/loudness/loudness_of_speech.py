"""
Loudness of speech over time
============================

Loudness has a course in time. The short-term loudness of a sentence rises and falls with its syllables, as that of
notes does in music; the long-term loudness is what a listener would say of the sentence so far, and remembers loud
moments for about a second. :class:`tamt.Moore2016Loudness` gives both, from a recording and the level at which it is
heard.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import soundfile
import soxr
import torch

import tamt

# %%
# From a file to pascal
# ---------------------
#
# Samples in a file have no level of their own. Here the sentence, :download:`speech.flac
# </../examples/data/speech.flac>`, is said to have 65 dB SPL as a whole, that of ordinary conversation: its root mean
# square, pauses and all, is set to the pressure of that level. The model wants 32 kHz. Half a second of silence behind
# the sentence lets loudness decay. A downloaded script finds the file beside itself.

path = next(p for p in map(Path, ("speech.flac", "../../data/speech.flac", "examples/data/speech.flac")) if p.exists())
samples, fs = soundfile.read(path, dtype="float32")
samples = torch.from_numpy(soxr.resample(samples, fs, 32000))
sound = tamt.spl.spl2pascal(65.0) * samples / samples.square().mean().sqrt()
sound = torch.nn.functional.pad(sound, (0, 16000))

# %%
# Loudness
# --------
#
# A frame every 4 ms is enough for speech. The loudness of the sentence in one number is the peak of its long-term
# loudness; N5, which the long-term loudness exceeds for 5 % of the time, is the same without a single moment's weight.

model = tamt.Moore2016Loudness(field="free", hop=4)
with torch.no_grad():
    loudness = model(sound)
during = int(len(samples) / 32000 * model.frame_rate)  # frames of the sentence, without the silence
n5 = torch.quantile(loudness.long_term[:during], 0.95)
for name, sone in ("peak", loudness.peak), ("N5", n5):
    print(f"{name}: {sone:.1f} sone, {tamt.sone2phon(sone):.0f} phon")
print(f"largest short-term loudness: {loudness.short_term.max():.1f} sone")

# %%
# The course of loudness
# ----------------------
#
# Below the curves, which channels of the ear loudness comes from, over time. Vowels have their formants, and fricatives
# are at the top of the picture, above 4 kHz. Short-term loudness is gone a tenth of a second after the last sound, at
# 2.2 s; long-term loudness is still above a quarter of its peak at 3 s.

times = model.times(len(loudness.short_term))
seconds = torch.arange(len(sound)) / 32000
cams = tamt.fc2erb(model.specific.fc)

fig, axes = plt.subplots(
    3,
    1,
    figsize=(10, 7),
    layout="constrained",
    sharex=True,
    height_ratios=(0.8, 1.6, 2.2),
    gridspec_kw={"hspace": 0.03},
)
axes[0].plot(seconds, sound, color="0.45", linewidth=0.5)
axes[0].set(ylabel="Pressure (Pa)", title="“The ear hears more than the meter shows.”, 65 dB SPL")

axes[1].fill_between(times, loudness.short_term, color="C0", alpha=0.25, linewidth=0)
axes[1].plot(times, loudness.short_term, color="C0", linewidth=1, label="short-term")
axes[1].plot(times, loudness.long_term, color="C3", linewidth=2.5, label="long-term")
highest = loudness.long_term.argmax()
axes[1].plot(times[highest], loudness.peak, "o", color="C3")
axes[1].annotate(
    f"peak {loudness.peak:.1f} sone", (times[highest], loudness.peak), (6, 6), textcoords="offset points", color="C3"
)
axes[1].axhline(n5, color="C3", linewidth=0.8, linestyle="--")
axes[1].annotate(
    f"N5 {n5:.1f} sone", (times[-1], n5), (0, -4), textcoords="offset points", color="C3", ha="right", va="top"
)
axes[1].set(ylabel="Loudness (sone)", ylim=(0, None))
axes[1].legend(loc="upper left", ncols=2)

image = axes[2].pcolormesh(
    times, cams, loudness.specific[0].T, cmap="magma", shading="gouraud", vmin=0, rasterized=True
)
ticks = torch.tensor([125.0, 250, 500, 1000, 2000, 4000, 8000])
axes[2].set_yticks(tamt.fc2erb(ticks), ["125", "250", "500", "1k", "2k", "4k", "8k"])
axes[2].set(xlabel="Time (s)", ylabel="Frequency (Hz)", xlim=(0, times[-1]))
fig.colorbar(image, ax=axes[2], label="Specific loudness\n(sone/Cam)", aspect=12, pad=0.01)
fig.set_label("Waveform of a sentence, its short-term and long-term loudness, and its specific loudness over time.")
plt.show()

# %%
# References
# ----------
#
# * \B. R. Glasberg, B. C. J. Moore, "A model of loudness applicable to time-varying sounds", J. Audio Eng. Soc. 50,
#   2002, on short-term and long-term loudness.
# * \B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher, "A loudness model for time-varying sounds
#   incorporating binaural inhibition", Trends in Hearing 20, 2016.
#
# Next: :doc:`/guide/levels` has the ways to calibrate a recording, :doc:`/guide/loudness` the models, and
# :doc:`/gallery/practice/streaming` a loudness meter that runs live.

# sphinx_gallery_start_ignore
# What the text above says.
assert loudness.short_term.max() > loudness.peak > n5 > 0.9 * loudness.peak
assert 2.1 < samples.abs().gt(1e-3).nonzero().max() / 32000 < 2.2
assert (loudness.short_term[times > 2.3] < 0.05 * loudness.short_term.max()).all()
assert loudness.long_term[times <= 3][-1] > 0.25 * loudness.peak
fricatives = loudness.specific[0][:during, model.specific.fc > 4000].sum(1) / loudness.specific[0][:during].sum(1)
assert fricatives.max() > 0.5
# sphinx_gallery_end_ignore
