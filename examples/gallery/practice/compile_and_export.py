"""
Compile and export
==================

A cochlea in front of a network is a part of it like any other: ``torch.compile`` makes one graph of both, for sounds of
every length, and ``torch.export`` a file that runs without the code of the model. Here a small classifier with a
:class:`tamt.Cochleagram`, whose :class:`tamt.GammatoneFilterbank` is learnable, goes both ways, and gives the same
numbers.
"""

import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import soxr
import torch
from torch import nn

import tamt

# %%
# Speech, of which pieces of five lengths will be taken. It is :download:`speech.flac
# </../examples/data/speech.flac>`, which a downloaded script finds beside itself.

torch.manual_seed(0)
torch.set_num_threads(1)
fs = 16000
path = next(p for p in map(Path, ("speech.flac", "../../data/speech.flac", "examples/data/speech.flac")) if p.exists())
speech = torch.from_numpy(soxr.resample(*soundfile.read(path, dtype="float32"), fs))


# %%
# The model
# ---------
#
# It gives scores of ten classes for sounds (B, T), from the mean level of every channel, and the frames themselves. A
# network of any other kind may stand there.


class Model(nn.Module):
    """A classifier of sounds that hears through a gammatone filterbank."""

    def __init__(self):
        super().__init__()
        bank = tamt.GammatoneFilterbank((80, 7500), fs, learnable="relative")
        self.cochleagram = tamt.Cochleagram(bank, hop_length=160, frame_length=320, compression="db")
        self.classes = nn.Linear(bank.num_channels, 10)

    def forward(self, sound):
        """Scores (B, 10) and frames (B, 30, M)."""
        frames = self.cochleagram(sound)
        return self.classes(frames.mean(-1)), frames


model = Model().eval()
lengths = [int(seconds * fs) for seconds in (0.25, 0.5, 1.0, 1.75, 2.5)]
sounds = [speech[None, :length] for length in lengths]

# %%
# One graph for all lengths
# -------------------------
#
# ``fullgraph=True`` makes an error of anything that would break the graph into pieces, and ``dynamic=True`` keeps the
# length a variable. The first sound compiles. After that the stance ``"fail_on_recompile"`` would stop at a second
# graph: all five lengths pass.

compiled = torch.compile(model, fullgraph=True, dynamic=True)
with torch.no_grad():
    start = time.perf_counter()
    compiled(sounds[0])
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    with torch.compiler.set_stance("fail_on_recompile"):
        outputs = [compiled(sound) for sound in sounds]
    expected = [model(sound) for sound in sounds]
torch.testing.assert_close(outputs, expected, rtol=1e-3, atol=1e-3)

# %%
# A file
# ------
#
# ``torch.export`` writes down what the model does, here for any length of two frames or more. The file has the weights,
# the filters among them. Who loads it needs torch, and ``import tamt``, which has the operators; the class ``Model`` is
# no longer needed.

samples = torch.export.Dim("samples", min=640)
with torch.no_grad():
    program = torch.export.export(model, (sounds[0],), dynamic_shapes={"sound": {1: samples}})
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "classifier.pt2"
    torch.export.save(program, file)
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
    loaded = torch.export.load(file).module()
with torch.no_grad():
    exported = [loaded(sound) for sound in sounds]
torch.testing.assert_close(exported, expected, rtol=1e-4, atol=1e-4)
for sound, (scores, frames) in zip(sounds, exported, strict=True):
    print(f"{sound.shape[-1] / fs:.2f} s of sound: {frames.shape[-1]} frames, {scores.shape[-1]} scores")

# %%
# Times
# -----
#
# Both forms in turn, one thread, the best of 10 rounds. On a CPU most of the time goes into the filters, which are
# one operator in both forms: compiling gains little here, and costs some seconds at the first call. It is for the
# network around the cochleagram; what counts is that the cochleagram does not break its graph.

milliseconds = np.zeros((10, len(sounds), 2))
with torch.no_grad():
    for rounds in milliseconds:
        for row, sound in zip(rounds, sounds, strict=True):
            for form, run in enumerate((model, compiled)):
                start = time.perf_counter()
                run(sound)
                row[form] = 1000 * (time.perf_counter() - start)
eager, fused = milliseconds.min(0).T
for length, one, two in zip(lengths, eager, fused, strict=True):
    print(f"{length / fs:.2f} s: eager {one:.1f} ms, compiled {two:.1f} ms")

seconds = np.array(lengths) / fs
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", width_ratios=(1.35, 1))
frames = exported[-1][1][0]
fc = tamt.fc2erb(model.cochleagram.fc)
times = model.cochleagram.times(frames.shape[-1])
image = left.pcolormesh(times, fc, frames, cmap="magma", vmin=frames.max() - 60, shading="nearest")
ticks = torch.tensor([125.0, 250, 500, 1000, 2000, 4000])
left.set_yticks(tamt.fc2erb(ticks), ["125", "250", "500", "1k", "2k", "4k"])
left.set(xlabel="Time (s)", ylabel="Frequency (Hz)", title="Frames of the exported file, 2.5 s of speech")
fig.colorbar(image, ax=left, label="Level (dB re full scale)", pad=0.01)

for name, times, colour in ("eager", eager, "C0"), ("compiled", fused, "C1"):
    right.plot(seconds, times, "o-", color=colour, linewidth=2, label=name)
right.set(xlim=(0, None), ylim=(0, None), xlabel="Length of the sound (s)", ylabel="Time of a call (ms)")
right.set_title("One graph for all lengths")
right.grid(alpha=0.3)
right.legend(loc="lower right")
fig.set_label(
    "Frames that the exported file gives of a sentence, and the times of the eager and compiled model over length."
)
plt.show()

# %%
# Next: :doc:`/guide/compile` has AOTInductor and CUDA graphs too, and what does not work.

# sphinx_gallery_start_ignore
# What the text above says.
assert [output[1].shape[-1] for output in exported] == [1 + (length - 320) // 160 for length in lengths]
with torch.no_grad():  # the loaded file knows no more of the model than its weights
    torch.testing.assert_close(
        loaded(sounds[3].repeat(1, 2))[0], model(sounds[3].repeat(1, 2))[0], rtol=1e-4, atol=1e-4
    )
assert len(lengths) == 5
# sphinx_gallery_end_ignore
