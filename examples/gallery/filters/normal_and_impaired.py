r"""
Normal and impaired hearing
===========================

``subject="HIx"`` is the cochlea of a :class:`tamt.DRNLFilterbank` without its outer hair cells: the nonlinear path is
silent, and what remains is the linear one. Faint sounds lose tens of decibels, loud ones next to nothing, and every
channel is broader. The same sentence, spoken quietly and loudly, shows what that takes from speech.
"""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import soundfile
import torch

import tamt
from tamt.spl import STAPES_LEVEL

# %%
# The sentence of the examples is :download:`speech.flac </../examples/data/speech.flac>`, which a downloaded script
# finds beside itself. It keeps its sampling rate:

path = next(p for p in map(Path, ("speech.flac", "../../data/speech.flac", "examples/data/speech.flac")) if p.exists())
samples, fs = soundfile.read(path, dtype="float32")
speech = torch.from_numpy(samples)
subjects = {"normal hearing (NH)": "NH", "impaired (HIx)": "HIx"}
colours = {"NH": "C0", "HIx": "C3"}

# %%
# Tones
# -----
#
# On the left, input and output at two frequencies. The impaired ear grows by 1 dB per dB at all levels. What it has
# lost at 0 dB SPL, and what is left of the loss at 100 dB, is printed below: the loss is larger the higher the
# channel, and vanishes for loud sounds. So loudness grows faster than in a normal ear, which is known as recruitment.
#
# On the right, the filters of the 4-kHz channel. For faint tones a normal ear has the sharp filter of its nonlinear
# path; the impaired ear has that of the linear path at all levels, twice as wide.

levels = torch.arange(0.0, 101.0, 4)
fc = [250.0, 500.0, 1000.0, 2000.0, 4000.0]
output = {
    s: tamt.DRNLFilterbank(fc, 48000, subject=s).io_function(levels + STAPES_LEVEL) - STAPES_LEVEL for s in colours
}
loss = output["NH"] - output["HIx"]
for row, hertz in enumerate(fc):
    lost = ", ".join(f"{loss[row, at]:5.1f} dB at {levels[at]:.0f}" for at in (0, 10, 20, 25))
    print(f"{hertz:5.0f} Hz: {lost} dB SPL")

f = torch.logspace(math.log10(1500), math.log10(7000), 400, dtype=torch.float64)
channel = tamt.DRNLFilterbank([4000.0], 48000)
linear, nonlinear = (path[0].abs() for path in channel.path_responses(f))
shapes = {"NH": 20 * nonlinear.log10(), "HIx": 20 * linear.log10()}
width = {}
for subject, shape in shapes.items():
    shapes[subject] = shape = shape - shape.max()
    inside = f[shape > -10]
    width[subject] = (inside[-1] - inside[0]).item()
    print(f"{subject}: {width[subject]:.0f} Hz wide 10 dB below the peak")

figure, axes = plt.subplots(1, 3, figsize=(10, 4), layout="constrained")
for panel, hertz in zip(axes, (500.0, 4000.0), strict=False):
    for name, subject in subjects.items():
        curve = output[subject][fc.index(hertz)]
        panel.plot(levels, curve, color=colours[subject], linewidth=2, label=name)
    panel.set(title=f"{hertz:.0f} Hz", xlabel="Tone (dB SPL)", xlim=(0, 100), ylim=(30, 155))
    panel.grid(alpha=0.25)
axes[0].set_ylabel("Output (dB re stapes at 0 dB SPL)")
axes[1].legend(loc="upper left")
for name, subject in subjects.items():
    axes[2].plot(f, shapes[subject], color=colours[subject], linewidth=2, label=name)
axes[2].set_xscale("log")
axes[2].set_xticks([2000, 3000, 4000, 6000], ["2k", "3k", "4k", "6k"])
axes[2].minorticks_off()
axes[2].set(title="4000 Hz: filter for faint tones", xlabel="Frequency (Hz)", ylabel="dB re peak", ylim=(-40, 2))
axes[2].set_xlim(1500, 7000)
axes[2].grid(alpha=0.25)
figure.set_label(
    "Input and output at 500 Hz and 4 kHz and the filter at 4 kHz, of a normal ear and of one without outer hair cells."
)
plt.show()

# %%
# Speech
# ------
#
# The sentence at 50 dB SPL, quiet, and at 80 dB SPL, loud, at the middle ear's gain at 1 kHz. Each channel's output
# is shown relative to what the normal ear makes of a tone of 0 dB SPL at the channel's frequency: where that is not
# reached, black, hardly anything would be heard.
#
# Between the two levels of speech lie 30 dB. The normal ear makes less than 20 of them, the impaired one all 30. It
# gets the lower formants of quiet speech and loses nearly all above 2 kHz, where consonants are told apart. In loud
# speech nearly all of it is there. Gain that is the same at all levels cannot make up for this: what is right for
# quiet speech is too much for loud speech. And no gain gives back the tuning.
#
# The step at 1 kHz in the normal ear's picture is the model's, whose broken stick is another one above 1 kHz.

channels = 60
rms = speech[speech.abs() > 0.01].square().mean().sqrt()  # of what is not a pause
hop = round(0.004 * fs)
banks = {s: tamt.DRNLFilterbank((150, 8000), fs, channels, subject=s, dtype=torch.float32) for s in colours}
frequencies = banks["NH"].fc
faint = banks["NH"].io_function([STAPES_LEVEL])[:, 0]  # of 0 dB SPL
features = {s: tamt.Cochleagram(banks[s], hop, detector="power", compression="db", floor=1e-20) for s in colours}

heard = {}
figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained", sharex=True, sharey=True)
for row, level in enumerate((50.0, 80.0)):
    velocity = tamt.spl.STAPES_GAIN * tamt.spl.spl2pascal(level) * speech / rms
    for column, (name, subject) in enumerate(subjects.items()):
        heard[subject, level] = picture = features[subject](velocity) - faint[:, None]
        times = features[subject].times(picture.shape[-1])
        mesh = axes[row, column].pcolormesh(times, frequencies, picture, cmap="magma", vmin=0, vmax=70, rasterized=True)
        axes[row, column].set_title(f"{name}, speech at {level:.0f} dB SPL")
for panel in axes.flat:
    panel.set(yscale="log", xlim=(0, 2.25))
    panel.set_yticks([250, 500, 1000, 2000, 4000, 8000], ["250", "500", "1k", "2k", "4k", "8k"])
    panel.minorticks_off()
for panel in axes[1]:
    panel.set_xlabel("Time (s)")
for panel in axes[:, 0]:
    panel.set_ylabel("Frequency (Hz)")
figure.colorbar(mesh, ax=axes, label="Output (dB re the normal ear's at 0 dB SPL)", aspect=40)
figure.set_label("Quiet and loud speech in the normal and the impaired cochlea, which loses quiet speech above 2 kHz.")
plt.show()

high = frequencies > 2000
shares = {}
for (subject, level), picture in heard.items():
    share = 100 * (picture[high][:, picture.amax(0) > 10] > 0).float().mean()
    shares[subject, level] = share
    print(f"{subject}, {level:.0f} dB SPL: {share:.0f} % of the output above 2 kHz over 0 dB; ", end="")
    print(f"median {picture.median():.0f}, maximum {picture.max():.0f} dB")

# %%
# References
# ----------
#
# * \M. L. Jepsen, T. Dau, "Characterizing auditory processing and perception in individual listeners with
#   sensorineural hearing loss", J. Acoust. Soc. Am. 129, 2011.
# * \B. C. J. Moore, Cochlear Hearing Loss, 2nd edition, 2007, on recruitment and tuning.
#
# Next: :doc:`/gallery/learning/recover_hearing_loss` finds such a loss by gradient descent; :doc:`/guide/levels` is on
# dB SPL and the velocity of the stapes.

# sphinx_gallery_start_ignore
# What the text above says.
assert (loss[:, 0].diff() > 0).all()
assert 19 < loss[0, 0] < 20
assert 41 < loss[4, 0] < 43
assert (loss[:, 25] < 2).all()
assert (loss.diff() < 0.01).all()
assert (output["HIx"].diff() - 4).abs().max() < 1e-2
assert 1.8 < width["HIx"] / width["NH"] < 2.1
for measure in (torch.median, torch.max):
    assert 15 < measure(heard["NH", 80.0]) - measure(heard["NH", 50.0]) < 20
    assert 29.9 < measure(heard["HIx", 80.0]) - measure(heard["HIx", 50.0]) < 30.1
assert shares["HIx", 50.0] < 15
assert shares["NH", 50.0] > 75
assert shares["HIx", 80.0] > 90
# sphinx_gallery_end_ignore
