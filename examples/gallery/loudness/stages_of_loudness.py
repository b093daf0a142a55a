"""
From sound to loudness, stage by stage
======================================

:class:`tamt.Moore2016Loudness` is a chain of modules that can be used alone: the outer and middle ear, a spectrum, the
excitation of auditory filters, specific loudness, its course in time, and the inhibition between the ears. Here they
are joined by hand, each is looked at, and what comes out is what the model gives. Beside it stands the older model,
:class:`tamt.Glasberg2002Loudness`.
"""

import math

import matplotlib.pyplot as plt
import torch

import tamt

# %%
# A sound
# -------
#
# A buzz of 60 dB SPL in both ears, then the same in the left ear alone: 20 harmonics of 200 Hz of the same strength, up
# to 4 kHz. Each lasts 0.2 s, and begins and ends with ramps of 10 ms.

fs = 32000
time = torch.arange(round(0.2 * fs)) / fs
ramp = (torch.minimum(time, time[-1] - time) / 0.01).clamp(max=1)
harmonics = torch.arange(1, 21)[:, None]
buzz = torch.sin(2 * torch.pi * 200 * harmonics * time + harmonics**2).sum(0)  # phases that spread the energy in time
buzz = ramp * tamt.spl.spl2pascal(60.0) * buzz / buzz.square().mean().sqrt()
pause = torch.zeros(round(0.1 * fs))
left = torch.cat((buzz, pause, buzz, pause, pause))
right = torch.cat((buzz, pause, 0 * buzz, pause, pause))
sound = torch.stack((left, right))  # (2, T) in pascal

# %%
# Stages
# ------
#
# A frame is one millisecond. :class:`tamt.OuterMiddleEar` passes best what is around 3 kHz, 8 dB more than at 1 kHz.
# :class:`tamt.Moore2016Spectrum` finds the components that stand out in each frame, and
# :class:`tamt.Moore2016ExcitationPattern` what 150 auditory filters, four in a Cam, make of them.
# :class:`tamt.Moore2016SpecificLoudness` compresses that. An :class:`tamt.AttackRelease` follows each channel in time,
# :class:`tamt.BinauralInhibition` lets the ears weaken each other, and the channels are added up to the short-term
# loudness of an ear. A second :class:`tamt.AttackRelease` makes it long-term.

ear = tamt.OuterMiddleEar(fs, field="free")
spectrum = tamt.Moore2016Spectrum(fs, 1, tamt.spl.pascal2spl(1 / math.sqrt(2)), joint_threshold=True)
pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10)
compress = tamt.Moore2016SpecificLoudness()
follow_channels = tamt.AttackRelease(0.045, 0.033, dim=-2)
inhibit = tamt.BinauralInhibition()
follow_loudness = tamt.AttackRelease(0.01, 0.00133)

before = 3072 - 1024 + ear.delay  # the first frame is centred on the first sample
with torch.no_grad():
    heard = ear(torch.nn.functional.pad(sound, (3072, 3072)))[:, before:]
    heard = torch.nn.functional.pad(heard, (0, spectrum.hop))
    freqs, intensities = spectrum.intensities(heard[None])
    excitation = pattern.excitation(freqs, intensities)[:, 0]  # (2, S, 150), power re 0 dB SPL
    specific = compress(excitation)  # sone/Cam
    followed = follow_channels(specific)
    inhibited = inhibit(followed)
    short_term = 0.25 * inhibited.sum(-1)  # (2, S) in sone: channels are 0.25 Cam apart
    long_term = follow_loudness(short_term)

    model = tamt.Moore2016Loudness(field="free")
    loudness = model(sound)
difference = (long_term.sum(0) - loudness.long_term).abs().max()
print(f"long-term loudness, largest difference to the model: {difference:.0e} sone")
together, alone = 180, 480  # frames near the end of each buzz
for name, frame in ("both ears", together), ("left ear", alone):
    kept = (inhibited[0, frame].sum() / followed[0, frame].sum()).item()
    sones = short_term[:, frame].tolist()
    print(f"{name}: {sones[0]:.2f} sone in the left and {sones[1]:.2f} in the right ear, ", end="")
    print(f"the left keeps {100 * kept:.0f} %")

# %%
# What each of them does
# ----------------------
#
# The auditory filters are narrow enough to tell the lowest harmonics apart, the first four or five: each is a line of
# its own in the excitation. Higher ones run together. Compression brings out what is weak: between 200 Hz and 4 kHz
# excitation differs by 36 dB, a factor of 3800, specific loudness by a factor of 11. Where both ears hear the buzz,
# each keeps three quarters of its loudness; one that hears it alone keeps all. So it is 1.5 times as loud in two ears
# as in one, not twice.
#
# Instantaneous loudness, the sum before anything follows it, ends with the sound. Short-term loudness falls over some
# tens of milliseconds. Long-term loudness has not come all the way up when a sound of 0.2 s ends, and outlasts the
# pauses.

cams, ticks = tamt.fc2erb(pattern.fc_channels), torch.tensor([250.0, 500, 1000, 2000, 4000, 8000])
names = ["250", "500", "1k", "2k", "4k", "8k"]
times = model.times(short_term.shape[-1])
fig, axes = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained")
gain = 20 * ear.frequency_response(pattern.fc_channels).abs().log10()
axes[0, 0].plot(cams, gain, linewidth=2)
axes[0, 0].set(ylim=(-30, 12), ylabel="Gain (dB)", title="OuterMiddleEar")

levels = (10 * excitation[0].clamp(min=1e-12).log10()).T
image = axes[0, 1].pcolormesh(times, cams, levels, cmap="magma", vmin=0, vmax=60, shading="nearest", rasterized=True)
axes[0, 1].set_yticks(tamt.fc2erb(ticks), names)
axes[0, 1].set(xlabel="Time (s)", ylabel="Frequency (Hz)", title="Moore2016ExcitationPattern, left ear")
fig.colorbar(image, ax=axes[0, 1], label="Excitation (dB SPL)")

axes[1, 0].plot(cams, followed[0, together], color="0.8", linewidth=6, label="before")
axes[1, 0].plot(cams, inhibited[0, together], color="C0", linewidth=2, label="after, both ears hear it")
axes[1, 0].plot(cams, inhibited[0, alone], color="C3", linewidth=2, linestyle="--", label="after, the left ear alone")
axes[1, 0].set(
    ylim=(0, 1.35 * followed[0, together].max()),
    ylabel="Specific loudness (sone/Cam)",
    title="BinauralInhibition, left ear",
)
axes[1, 0].legend(loc="upper left")
for panel in axes[:, 0]:
    panel.set_xticks(tamt.fc2erb(ticks), names)
    panel.set(xlabel="Frequency (Hz), in steps of ERB", xlim=(cams[0], cams[-1]))
    panel.grid(alpha=0.25)

axes[1, 1].plot(times, 0.25 * inhibit(specific).sum((0, 2)), color="0.6", linewidth=1, label="instantaneous")
axes[1, 1].plot(times, short_term.sum(0), color="C0", linewidth=2, label="short-term")
axes[1, 1].plot(times, long_term.sum(0), color="C3", linewidth=2.5, label="long-term")
axes[1, 1].set(xlim=(0, times[-1]), ylim=(0, 1.25 * short_term.sum(0).max()), xlabel="Time (s)")
axes[1, 1].set_ylabel("Loudness (sone)")
axes[1, 1].set_title("AttackRelease: both ears together")
axes[1, 1].grid(alpha=0.25)
axes[1, 1].legend(loc="upper right", ncols=3, fontsize=9, handlelength=1.2, columnspacing=1.2)
fig.set_label(
    "The ear's gain, excitation over time, specific loudness with and without inhibition, and loudness over time."
)
plt.show()

# %%
# The older model
# ---------------
#
# :class:`tamt.Glasberg2002Loudness` has the same ear, spectrum and filters. It has no inhibition, as both ears always
# hear the same, and it follows the sum of all channels in place of each. Here it hears what the left ear did, and the
# newer model hears that in both ears. At the end of each buzz they are within 1 % of each other. They differ in time.
# Short-term loudness falls with 50 ms in the older model, with 30 ms in the newer one, and long-term loudness with 2 s,
# not 0.75 s.

older = tamt.Glasberg2002Loudness(field="free", hop=2)
newer = tamt.Moore2016Loudness(field="free", hop=2)
with torch.no_grad():
    curves = {"Glasberg2002Loudness": older(left), "Moore2016Loudness": newer(left)}
times = newer.times(len(curves["Moore2016Loudness"].short_term))
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
for (name, curve), colour in zip(curves.items(), ("C1", "C0"), strict=True):
    axes[0].plot(times, curve.short_term, color=colour, linewidth=2, label=name)
    axes[1].plot(times, curve.long_term, color=colour, linewidth=2, label=name)
    last = [f"{getattr(curve, kind)[-1]:.2f}" for kind in ("short_term", "long_term")]
    print(f"{name}: {curve.short_term[240]:.2f} sone at 0.48 s; at the end {last[0]} short-term, {last[1]} long-term")
for panel, title in zip(axes, ("Short-term loudness", "Long-term loudness"), strict=True):
    panel.set(xlim=(0, times[-1]), xlabel="Time (s)", title=f"{title}, both ears hear the same")
    panel.grid(alpha=0.25)
axes[0].set(ylim=(0, 1.3 * curve.short_term.max()), ylabel="Loudness (sone)")
axes[0].legend(loc="upper left")
fig.set_label(
    "Short-term and long-term loudness of two sounds in both models; that of the older model falls more slowly."
)
plt.show()

# %%
# References
# ----------
#
# * \B. R. Glasberg, B. C. J. Moore, "A model of loudness applicable to time-varying sounds", J. Audio Eng. Soc. 50,
#   2002.
# * \B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher, "A loudness model for time-varying sounds
#   incorporating binaural inhibition", Trends in Hearing 20, 2016.
#
# Next: :doc:`/guide/loudness` has the constants of each stage and the differences from other programs;
# :doc:`/gallery/loudness/loudness_of_speech` takes the model to a recording.

# sphinx_gallery_start_ignore
# What the text above says.
torch.testing.assert_close(long_term.sum(0), loudness.long_term, rtol=1e-4, atol=1e-6)
torch.testing.assert_close(short_term.sum(0), loudness.short_term, rtol=1e-4, atol=1e-6)
assert abs(gain.max() - 20 * ear.frequency_response([1000.0]).abs().log10() - 8) < 1
assert 2500 < pattern.fc_channels[gain.argmax()] < 3500
assert abs(inhibited[0, together].sum() / followed[0, together].sum() - 0.75) < 0.01
assert abs(inhibited[0, alone].sum() / followed[0, alone].sum() - 1) < 0.01
assert abs(short_term[:, together].sum() / short_term[:, alone].sum() - 1.5) < 0.02
assert short_term[1, alone] < 0.01
level = 10 * excitation[0, together].log10()
peaks = pattern.fc_channels[1:-1][(level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])]
assert (peaks[:4] - 200 * torch.arange(1, 5)).abs().max() < 15
assert (peaks[:5].diff() < 220).all()
assert peaks[5:].diff().min() > 500
inside = (pattern.fc_channels > 200) & (pattern.fc_channels < 4000)
assert abs(level[inside].max() - level[inside].min() - 36) < 1
assert abs(specific[0, together][inside].max() / specific[0, together][inside].min() - 10.6) < 0.5
assert long_term[:, 200].sum() < 0.9 * short_term[:, 190].sum()
assert long_term[:, 290].sum() > 0.8 * long_term[:, 200].sum()
glasberg, moore = curves["Glasberg2002Loudness"], curves["Moore2016Loudness"]
assert abs(glasberg.short_term[240] / moore.short_term[240] - 1) < 0.01
assert abs(glasberg.short_term[90] / moore.short_term[90] - 1) < 0.01
for kind, first, of_older, of_newer in (("short_term", 280, 50, 30), ("long_term", 320, 2000, 751)):
    for curve, expected in ((glasberg, of_older), (moore, of_newer)):
        values = getattr(curve, kind)[first : first + 31]  # of 60 ms
        assert abs(-60 / (values[-1] / values[0]).log() / expected - 1) < 0.2
# sphinx_gallery_end_ignore
