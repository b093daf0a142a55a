"""
A folder of sound files
=======================

Features of many files, computed once and kept: read, resample, :class:`tamt.Cochleagram`, write. Files are independent,
so several can be worked on at a time. Threads do for that, as torch and the readers of files let others run while they
compute, and all threads share one filterbank; each computes with one thread of torch's own.
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import soxr
import torch

import tamt

# %%
# Twelve files
# ------------
#
# They have different lengths, 7 to 15 s, and sampling rates, as found files have; here they are one sentence over and
# over, each begun elsewhere, some played faster and some slower. The sentence is :download:`speech.flac
# </../examples/data/speech.flac>`, which a downloaded script finds beside itself.

folder = tempfile.TemporaryDirectory()
sounds, results = Path(folder.name) / "sounds", Path(folder.name) / "features"
sounds.mkdir()
results.mkdir()
path = next(p for p in map(Path, ("speech.flac", "../../data/speech.flac", "examples/data/speech.flac")) if p.exists())
sentence, source_fs = soundfile.read(path, dtype="float32")
spoken = np.tile(sentence, 6)
for number in range(12):
    rate = (16000, 22050, 32000, 44100)[number % 4]
    piece = spoken[number * 4500 : number * 4500 + round((8 + 0.35 * number) * source_fs)]
    speed = 1 + 0.25 * (number % 3 - 1)
    soundfile.write(sounds / f"take{number:02}.wav", soxr.resample(piece, speed * source_fs, rate), rate)

# %%
# The work for one file
# ---------------------
#
# All features are made at 16 kHz, so that one bank serves all files. A :class:`tamt.Cochleagram` keeps nothing from
# call to call; threads can share it.

fs = 16000
bank = tamt.GammatoneFilterbank((60, 7500), fs, n_channels=64)
cochleagram = tamt.Cochleagram(bank, hop_length=160, frame_length=320, compression="db")


def features_of(path):
    """Make the features of a file, and return the file they are in."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = samples.mean(1)  # channels of a recording are averaged
    sound = torch.from_numpy(soxr.resample(samples, rate, fs))
    with torch.inference_mode():  # of this thread
        frames = cochleagram(sound)
    target = results / f"{path.stem}.npz"
    np.savez(target, frames=frames, times=cochleagram.times(frames.shape[-1]), fc=bank.fc)
    return target


# %%
# All files
# ---------
#
# With one thread of torch per worker, as many workers as there are cores do not get into each other's way. A second
# worker needs a core of its own: on a machine that is busy with other things it gains little.

torch.set_num_threads(1)
paths = sorted(sounds.glob("*.wav"))
features_of(paths[0])  # what is done once, is done
for workers in (1, 2):
    with ThreadPoolExecutor(workers) as pool:
        start = time.perf_counter()
        written = list(pool.map(features_of, paths))
        milliseconds = 1000 * (time.perf_counter() - start)
    print(f"{workers} at a time: {len(written)} files in {milliseconds:.0f} ms, on {os.cpu_count()} cores")

# %%
# The shell does much the same, one file after the other, with pictures if ``--no-plot`` is left out. It keeps the
# channels of a recording, (C, 64, M), where the function above averages them:
#
# .. code-block:: sh
#
#    tamt analyze sounds --out features --no-plot --fs 16000 --flow 60 --fhigh 7500 --frame 0.02 --compression db

# %%
# Contact sheet
# -------------

fig, sheet = plt.subplots(3, 4, figsize=(10, 6.2), layout="constrained", sharey=True, sharex=True)
ticks = torch.tensor([125.0, 500, 2000])
loaded = [np.load(path) for path in written]
top = max(file["frames"].max() for file in loaded)
for axes, path, file in zip(sheet.flat, written, loaded, strict=True):
    times, cams = file["times"], tamt.fc2erb(torch.from_numpy(file["fc"]))  # even, both of them
    extent = (times[0], times[-1], cams[0], cams[-1])
    image = axes.imshow(file["frames"], "magma", aspect="auto", vmin=top - 60, vmax=top, origin="lower", extent=extent)
    axes.set_title(f"{path.stem}: {file['frames'].shape[1]} frames", fontsize=9)
    axes.set_yticks(tamt.fc2erb(ticks), ["125", "500", "2k"])
sheet[0, 0].set_xlim(0, max(file["times"][-1] for file in loaded))
fig.supxlabel("Time (s)", fontsize=10)
fig.supylabel("Frequency (Hz)", fontsize=10)
fig.colorbar(image, ax=sheet, label="Level (dB re full scale)", aspect=30, pad=0.01)
fig.set_label("Contact sheet of twelve cochleagrams, one for each file, on one colour scale.")
plt.show()

# %%
# Next: :doc:`/guide/command_line` does it from the shell, :doc:`/guide/tuning` has more on threads and batches.

# sphinx_gallery_start_ignore
# What the text above says.
assert len(paths) == len(written) == 12
rates, lengths = zip(*((soundfile.info(path).samplerate, soundfile.info(path).frames) for path in paths), strict=True)
assert set(rates) == {16000, 22050, 32000, 44100}
seconds = [length / rate for length, rate in zip(lengths, rates, strict=True)]
assert round(min(seconds)) == 7
assert round(max(seconds)) == 15
assert len({file["frames"].shape[1] for file in loaded}) > 6
for path, file, rate, length in zip(paths, loaded, rates, lengths, strict=True):
    sound = torch.from_numpy(soxr.resample(soundfile.read(path, dtype="float32")[0], rate, fs))
    np.testing.assert_allclose(file["frames"], cochleagram(sound), atol=1e-3)
    assert abs(file["frames"].shape[1] - (length / rate * 100 - 1)) <= 1.5
folder.cleanup()
# sphinx_gallery_end_ignore
