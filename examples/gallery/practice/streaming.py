"""
Sound as it comes: streaming
============================

A microphone gives a few milliseconds of sound at a time. :class:`tamt.Cochleagram` and the loudness models take sound
in such blocks by ``stream``, which hands out the frames that a block completes, and a state for the next block. All
frames together are those of the whole sound in one call. What counts live is that a block is done before the next one
is there, and how far behind the sound the frames are.
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import soxr
import torch

import tamt

# %%
# The source
# ----------
#
# A microphone, as a program sees it, gives block after block. Here a recording is handed out like that,
# :download:`speech.flac </../examples/data/speech.flac>`, which a downloaded script finds beside itself.

torch.set_num_threads(1)  # pieces as short as these do not pay for more
fs, block = 32000, 512  # blocks of 16 ms
path = next(p for p in map(Path, ("speech.flac", "../../data/speech.flac", "examples/data/speech.flac")) if p.exists())
recording = soxr.resample(*soundfile.read(path, dtype="float32"), fs)


def microphone():
    """Blocks of float32 samples, as those of a sound card: always of one size, never the whole sound."""
    for start in range(0, len(recording) - block + 1, block):
        yield recording[start : start + block].copy()


# %%
# Two listeners
# -------------
#
# The cochleagram has 48 channels and a frame every 10 ms, of 20 ms. The loudness meter wants pascal: a sine of full
# scale is said to have 90 dB SPL. Blocks and frames have nothing to do with each other; what is left of a block waits
# in the state. The meter gets four blocks at a time: every call has a cost of its own, whatever its length, and the
# meter is 96 ms behind the sound anyway. Time is that of the processor, to which other programs do not add; on a
# machine that is busy leave a margin. A first run with silence allocates what the second one finds.

bank = tamt.GammatoneFilterbank((80, 8000), fs, n_channels=48)
cochleagram = tamt.Cochleagram(bank, hop_length=320, frame_length=640, compression="db")
meter = tamt.Moore2016Loudness(hop=10)
pascal = tamt.spl.full_scale_pascal(90.0)


def listen(blocks):
    """Frames of both for every block, and the seconds that each of them took for it."""
    frames, loudness, seconds = [], [], []
    cochlea_state, meter_state, waiting = None, None, []
    for samples in blocks:
        start = time.process_time()
        sound = torch.from_numpy(samples)
        new, cochlea_state = cochleagram.stream(sound, cochlea_state)
        between = time.process_time()
        waiting.append(pascal * sound)
        if len(waiting) == 4:
            heard, meter_state = meter.stream(torch.cat(waiting), meter_state)
            loudness.append(heard.short_term)
            waiting.clear()
        seconds.append((between - start, time.process_time() - between))
        frames.append(new)  # (48, M) with M = 1 or 2
    return frames, loudness, np.array(seconds)


with torch.inference_mode():
    listen([np.zeros(block, dtype=np.float32)] * 8)
    frames, loudness, seconds = listen(microphone())

heard = len(frames) * block / fs
print(f"{len(frames)} blocks of {1000 * block / fs:.0f} ms")
for name, took in ("cochleagram", seconds[:, 0]), ("loudness meter", seconds[:, 1]), ("both", seconds.sum(1)):
    print(f"{name}: {1000 * took.mean():.1f} ms per block on average, real-time factor {took.sum() / heard:.2f}")

# %%
# Latency
# -------
#
# A frame is out when the block with its last sample has been computed. A frame of the cochleagram has its middle 10 ms
# before that sample, and waits for the rest of the block, up to 16 ms. The filters answer late themselves, by about 5
# ms at 1 kHz. The loudness model looks at long windows of sound at low frequencies, and needs 96 ms behind the middle
# of a frame, besides the 64 ms that four blocks take to come together.

print(f"loudness meter: {1000 * meter.latency / fs:.0f} ms behind the sound")

# %%
# The same as in one call
# -----------------------

streamed = torch.cat(frames, -1)
sound = torch.from_numpy(recording[: len(frames) * block])
with torch.inference_mode():
    whole = cochleagram(sound)
    whole_loudness = meter(pascal * sound).short_term
streamed_loudness = torch.cat(loudness)
torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-2)  # in dB
torch.testing.assert_close(streamed_loudness, whole_loudness[: len(streamed_loudness)], rtol=1e-3, atol=1e-4)
print(f"{streamed.shape[-1]} frames, {(streamed - whole).abs().max():.1e} dB apart at most")

# %%
# A display that scrolls
# ----------------------
#
# Above, what a display of the last second shows at three times. Below, the loudness, which ends 96 ms before the sound
# does, and the times that the cochleagram took for a block and the meter for four, beside the times that these last,
# on the machine that made this page.

fig = plt.figure(figsize=(10, 8.4), layout="constrained")
grid = fig.add_gridspec(4, 3, height_ratios=(2.2, 1.2, 0.9, 0.9))
cams = tamt.fc2erb(bank.fc)
ticks = torch.tensor([125.0, 250, 500, 1000, 2000, 4000, 8000])
counts = np.cumsum([new.shape[-1] for new in frames])  # frames after every block
top = streamed.max()
for column, now in enumerate((1.0, 1.5, 2.0)):
    blocks = int(now * fs / block)
    shown = streamed[:, : counts[blocks - 1]]
    axes = fig.add_subplot(grid[0, column])
    when = cochleagram.times(shown.shape[-1]) - blocks * block / fs
    image = axes.pcolormesh(when, cams, shown, cmap="magma", vmin=top - 60, vmax=top, shading="nearest")
    axes.set_yticks(tamt.fc2erb(ticks), ["125", "250", "500", "1k", "2k", "4k", "8k"] if column == 0 else [])
    axes.set(xlim=(-1, 0), xlabel="Time before now (s)", title=f"After {blocks} blocks, {blocks * block / fs:.2f} s")
    if column == 0:
        axes.set_ylabel("Frequency (Hz)")
fig.colorbar(image, ax=fig.axes, label="Level (dB re full scale)", aspect=16, pad=0.03)

ends = np.arange(1, len(frames) + 1) * block / fs
axes = fig.add_subplot(grid[1, :])
axes.fill_between(meter.times(len(streamed_loudness)), streamed_loudness, color="C0", alpha=0.3, linewidth=0)
axes.plot(meter.times(len(streamed_loudness)), streamed_loudness, color="C0")
axes.set(xlim=(0, ends[-1]), ylim=(0, None), ylabel="Loudness (sone)", title="Short-term loudness")
axes.set_xticklabels([])

middles = ends - block / fs / 2
for row, (what, took, colour, count) in enumerate(
    (
        ("Cochleagram: time for a block", seconds[:, 0], "C2", 1),
        ("Loudness meter: time for four", seconds[:, 1], "C0", 4),
    )
):
    lasts = 1000 * count * block / fs
    axes = fig.add_subplot(grid[2 + row, :])
    axes.bar(middles, 1000 * took, 0.8 * block / fs, color=colour)
    axes.axhline(lasts, color=colour, linestyle="--", linewidth=1.2)
    axes.set(xlim=(0, ends[-1]), ylim=(0, max(1.35 * lasts, 1100 * took.max())), ylabel="Time (ms)")
    axes.set_title(
        f"{what}; dashed: its {lasts:.0f} ms" if count == 1 else f"{what} blocks; dashed: their {lasts:.0f} ms"
    )
    if row == 0:
        axes.set_xticklabels([])
axes.set_xlabel("Time of the sound (s)")
fig.set_label(
    "A cochleagram that scrolls, at three times; below, loudness, and the time that every block took to compute."
)
plt.show()

# %%
# Next: :doc:`/guide/streaming` has the rules, latencies and states of every module.

# sphinx_gallery_start_ignore
# What the text above says.
assert 1000 * block / fs == 16
assert meter.latency == 0.096 * fs
near = tamt.GammatoneFilterbank([1000.0], fs).frequency_response(torch.tensor([995.0, 1005.0]))[0]
assert 0.004 < (near[0] / near[1]).angle() / (2 * torch.pi * 10) < 0.0055  # group delay, measured: 4.6 ms
assert {new.shape[-1] for new in frames[3:]} == {1, 2}
assert streamed.shape == whole.shape
assert len(streamed_loudness) == (len(frames) // 4 * 4 * block - meter.latency) // (fs // 100) + 1
# sphinx_gallery_end_ignore
