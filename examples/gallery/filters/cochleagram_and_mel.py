r"""
A cochleagram beside a mel spectrogram
======================================

The same sentence as a :class:`tamt.Cochleagram` and as a mel spectrogram: the same hop, the same number of channels,
the same range of colours. They look alike from afar, and differ in what they resolve: a spectrogram has one window for
all frequencies, a cochlea has filters that are slow and sharp below, fast and broad above.
"""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import soundfile
import torch

import tamt

# %%
# The sentence of the examples is :download:`speech.flac </../examples/data/speech.flac>`, which a downloaded script
# finds beside itself. It keeps its sampling rate:

path = next(p for p in map(Path, ("speech.flac", "../../data/speech.flac", "examples/data/speech.flac")) if p.exists())
samples, fs = soundfile.read(path, dtype="float32")
speech = torch.from_numpy(samples)
channels, low, high = 80, 60.0, 8000.0
hop = round(0.002 * fs)  # 2 ms, fine enough to see single pulses of the voice

# %%
# Both of them
# ------------
#
# The cochleagram is one module. The mel spectrogram, as most speech recognisers take it: power of a 25-ms Hann
# window, summed under triangles that are evenly spaced on the mel scale (in the form of HTK).

bank = tamt.GammatoneFilterbank((low, high), fs, n_channels=channels)
cochleagram, fc = tamt.Cochleagram(bank, hop_length=hop, compression="db"), bank.fc

n_fft = 1024
window = torch.hann_window(round(0.025 * fs))
edges = torch.linspace(2595 * math.log10(1 + low / 700), 2595 * math.log10(1 + high / 700), channels + 2)
edges = 700 * (10 ** (edges / 2595) - 1)
bins = torch.linspace(0, fs / 2, n_fft // 2 + 1)
rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
triangles = torch.minimum(rise, fall).clamp(min=0)


def mel_spectrogram(sound):
    """Mean power (..., M) of every mel channel in dB; frame m is centred at sample m * hop."""
    spectrum = torch.stft(sound, n_fft, hop, len(window), window, return_complex=True)
    return 10 * (triangles @ spectrum.abs().square()).clamp(min=1e-10).log10()


pictures = {
    "Cochleagram": (cochleagram(speech), fc),
    "Mel spectrogram": (mel_spectrogram(speech)[:, : len(speech) // hop], edges[1:-1]),
}


def frequency_axis(axes, name="y"):
    """A logarithmic axis with a tick per octave."""
    ticks = [63, 125, 250, 500, 1000, 2000, 4000, 8000]
    axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high), f"{name}label": "Frequency (Hz)"})
    labels = [f"{hertz // 1000}k" if hertz >= 1000 else str(hertz) for hertz in ticks]
    (axes.xaxis if name == "x" else axes.yaxis).set_ticks(ticks, labels)
    axes.minorticks_off()


def draw(axes, title, levels, centres):
    """Levels over time, down to 60 dB below the highest."""
    times = torch.arange(levels.shape[-1]) * hop / fs
    mesh = axes.pcolormesh(times, centres, levels - levels.max(), vmin=-60, vmax=0, cmap="magma", rasterized=True)
    frequency_axis(axes)
    axes.set_title(title)
    return mesh


figure, axes = plt.subplots(2, 1, figsize=(10, 6.6), layout="constrained", sharex=True)
for panel, (title, (levels, centres)) in zip(axes, pictures.items(), strict=True):
    mesh = draw(panel, title, levels, centres)
axes[1].set(xlabel="Time (s)", xlim=(0, 2.25))
figure.colorbar(mesh, ax=axes, label="Level (dB re maximum)", aspect=40)
figure.set_label("A spoken sentence as a cochleagram above and as a mel spectrogram below, much alike from afar.")
plt.show()

# %%
# A closer look
# -------------
#
# A quarter of a second of it, most of it voice. The lowest harmonics are lines in both. Where a channel of the
# cochlea is wider than the distance of two harmonics, about 100 Hz here, it lets them beat: every closing of the
# glottis is a stripe, 10 ms from the next. The ear hears the pitch of a voice by both. The window of 25 ms is longer
# than two periods: it draws more lines, and hardly any stripes above 500 Hz.

start, stop = 0.62, 0.87
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharey=True)
for panel, (title, (levels, centres)) in zip(axes, pictures.items(), strict=True):
    mesh = draw(panel, title, levels, centres)
    panel.set(xlim=(start, stop), xlabel="Time (s)")
axes[1].set_ylabel("")
figure.colorbar(mesh, ax=axes, label="Level (dB re maximum)", aspect=30)
figure.set_label("A vowel close up: stripes every 10 ms in the cochleagram, horizontal lines in the mel spectrogram.")
plt.show()

# %%
# How much the levels of the channels between 2.5 and 4 kHz move about their mean over 10 ms, in the vowel at the end:

ripple, period = {}, {}
for title, (levels, centres) in pictures.items():
    rows = levels[(centres > 2500) & (centres < 4000), round(0.77 * fs / hop) : round(0.87 * fs / hop)]
    fast = rows[:, 2:-2] - torch.nn.functional.avg_pool1d(rows[None], 5, 1)[0]
    ripple[title] = fast.std().item()
    again = torch.stack([(fast[:, lag:] * fast[:, : fast.shape[1] - lag]).mean() for lag in range(3, 8)])
    period[title] = 1e3 * (3 + int(again.argmax())) * hop / fs
    print(f"{title}: {ripple[title]:.1f} dB")
print(f"time between stripes of the cochleagram: {period['Cochleagram']:.0f} ms")

# %%
# Width and delay
# ---------------
#
# The reason in two pictures. On the left the widths of the channels. Those of the cochlea are auditory filters
# (Glasberg and Moore, 1990). A mel channel is a triangle, blurred by the spectrum of the window, 60 Hz wide, which
# sets its width at low frequencies: more mel channels there, or a longer DFT, resolve nothing more. Around 1 kHz 80
# triangles are narrower than the ear's filters, and show single harmonics that the ear does not resolve. Higher up they
# are wider than the distance of two harmonics, but less than half as wide as the ear's filters at 4 kHz.
#
# On the right a click at time 0, and when it is in each channel: from the first to the last tenth of its energy. The
# window spreads it by the same time everywhere, half of it before the click has come. The cochlea is causal, and
# takes the longer the narrower its channels: a stream of sound can be followed as it comes, and above 4 kHz a click
# is over within 2 ms.

tones = torch.arange(0, fs / 2, 5.0)
seconds = torch.arange(len(window)) / fs
blurred = torch.fft.fft(window * torch.exp(2j * torch.pi * tones[:, None] * seconds), n_fft)[:, : len(bins)]
response = triangles @ blurred.abs().square().T  # of every mel channel to tones
mel_width = 5.0 * response.sum(-1) / response.amax(-1)
erb = cochleagram.bank.design()["erb"]

click = torch.zeros(fs // 5)
click[0] = 1
energy = cochleagram.bank.envelope(click).square().double().cumsum(-1)
ends = [1e3 * (energy > share * energy[:, -1:]).double().argmax(-1) / fs for share in (0.1, 0.5, 0.9)]
seen = window.double().square().cumsum(0)
mel_ends = [1e3 * (int((seen > share * seen[-1]).double().argmax()) - len(window) / 2) / fs for share in (0.1, 0.9)]

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
axes[0].loglog(fc, erb, linewidth=2.5, label="Cochleagram")
axes[0].loglog(edges[1:-1], mel_width, linewidth=2.5, label="Mel spectrogram")
axes[0].set_yticks([30, 60, 120, 250, 500, 1000], ["30", "60", "120", "250", "500", "1k"])
frequency_axis(axes[0], "x")
axes[0].set(ylabel="Width (Hz)", title="Equivalent rectangular bandwidth of a channel")
axes[0].grid(alpha=0.25)
axes[0].legend()
axes[1].fill_betweenx(fc, ends[0], ends[2], color="C0", alpha=0.35, linewidth=0)
axes[1].plot(ends[1], fc, color="C0", linewidth=2.5)
axes[1].axvspan(*mel_ends, color="C1", alpha=0.35, linewidth=0)
axes[1].axvline(0, color="C1", linewidth=2.5)
frequency_axis(axes[1])
axes[1].set(xlim=(-10, 40), xlabel="Time since the click (ms)", title="When a click is in a channel")
axes[1].text(-9.4, 75, "mel", color="C1", weight="bold")
axes[1].text(16, 500, "cochlea", color="C0", weight="bold")
figure.set_label("Widths of both sets of channels over frequency, and the times at which a click is in each of them.")
plt.show()
for hertz in (100, 500, 1000, 4000):
    channel, mel = int((fc - hertz).abs().argmin()), int((edges[1:-1] - hertz).abs().argmin())
    wide, late = erb[channel], ends[1][channel]
    print(f"{hertz} Hz: cochlea {wide:.0f} Hz wide, {late:.1f} ms late; mel {mel_width[mel]:.0f} Hz wide")
print(f"above 4 kHz a click is over after {ends[2][fc > 4000].max():.1f} ms")
print(f"mel: from {mel_ends[0]:.1f} to {mel_ends[1]:.1f} ms")

# %%
# References
# ----------
#
# * \B. R. Glasberg, B. C. J. Moore, "Derivation of auditory filter shapes from notched-noise data", Hearing Research
#   47, 1990.
#
# Next: :doc:`/coming_from/mel` has the details of frames and units, :doc:`/guide/training` puts a cochleagram in front
# of a network.

# sphinx_gallery_start_ignore
# What the text above says.
assert ripple["Cochleagram"] > 5
assert ripple["Mel spectrogram"] < 1.5
assert 9 < period["Cochleagram"] < 11
assert len(window) / fs > 2 * 0.01
window_width = fs * window.square().sum() / window.sum() ** 2
assert abs(window_width - 60) < 1
assert (mel_width > 60).all()
assert (mel_width[edges[1:-1] < 250] < 85).all()
assert erb[0] < 0.6 * mel_width[0]
assert (mel_width[-20:] < 0.8 * erb[-20:]).all()
at = {hertz: (int((fc - hertz).abs().argmin()), int((edges[1:-1] - hertz).abs().argmin())) for hertz in (1000, 4000)}
assert mel_width[at[1000][1]] < 100 < erb[at[1000][0]]  # Hz, the distance of two harmonics
assert 100 < mel_width[at[4000][1]] < 0.5 * erb[at[4000][0]]
assert abs(sum(mel_ends)) < 0.2
assert ends[1][0] > 10
assert ends[2][fc > 4000].max() < 2
# sphinx_gallery_end_ignore
