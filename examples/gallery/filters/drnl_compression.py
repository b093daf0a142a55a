r"""
Compression in the cochlea
==========================

The cochlea amplifies faint sounds and compresses louder ones. In a :class:`tamt.DRNLFilterbank` every channel has a
linear path and one with a broken stick, whose output grows with the fourth root of its input above a knee; the sum of
both is linear for faint sounds, compressive in the middle, and linear again for very loud ones. Here are the output
levels of tones at the channels' frequencies over their levels in dB SPL.
"""

import matplotlib.pyplot as plt
import torch

import tamt
import tamt.plot
from tamt.spl import STAPES_LEVEL

fs = 44100
fc = [250.0, 500.0, 1000.0, 2000.0, 4000.0]
step = 0.5
levels = torch.arange(0.0, 110.1, step)  # dB SPL
# The filters take the velocity of the stapes, and their levels are in dB re 1 m/s: those in dB SPL plus STAPES_LEVEL.
banks = {model: tamt.DRNLFilterbank(fc, fs, model=model) for model in ("paulick2024", "jepsen2008")}
output = {model: bank.io_function(levels + STAPES_LEVEL) - STAPES_LEVEL for model, bank in banks.items()}
colours = plt.get_cmap("plasma")(torch.linspace(0.0, 0.85, len(fc)).numpy())

# %%
# Output
# ------
#
# The slope of a curve is its growth in dB per dB: 1 is linear. In the middle it falls to 0.27 in high channels, which
# is near what was measured on the basilar membrane of chinchillas at its best frequency, as low as about 0.2 (Ruggero
# et al., 1997). Up to 2 kHz compression begins at the lower a level the higher the channel, and then stays, as the
# model holds its broken stick constant above 1 kHz. At 250 Hz it begins near 60 dB SPL, and the linear path takes
# over soon.


def slopes(curves):
    """Growth of the output in dB per dB, over 1 dB around every level but the first and the last."""
    return (curves[:, 2:] - curves[:, :-2]) / (2 * step)


growth = {model: slopes(curves) for model, curves in output.items()}
least, at = growth["paulick2024"].min(-1)
knee = [levels[1:-1][row < 0.6][0].item() for row in growth["paulick2024"]]
print("paulick2024   least slope   at        slope first below 0.6   slope at 20 and at 105 dB SPL")
for row, hertz in enumerate(fc):
    ends = [growth["paulick2024"][row, levels[1:-1] == level].item() for level in (20, 105)]
    print(f"{hertz:6.0f} Hz {least[row]:14.2f} {levels[1:-1][at[row]]:8.1f} dB", end="")
    print(f"{knee[row]:17.1f} dB {ends[0]:20.2f} {ends[1]:9.2f}")

figure = tamt.plot.io_functions(
    levels + STAPES_LEVEL,
    output["paulick2024"] + STAPES_LEVEL,
    fc,
    title="Output of tones at the channels' frequencies",
)
figure.set_label("Output of five channels over the level of a tone: linear, then compressed, then linear.")

# %%
# Gain
# ----
#
# The same as a gain, output less input: it is largest for faint sounds and falls as the level rises. At 4 kHz it falls
# by some 40 dB. These are what an ear without its outer hair cells has lost
# (:doc:`/gallery/filters/normal_and_impaired`); the rest, some 35 dB, is a constant of the model.

gain = output["paulick2024"] - levels
figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
for row, hertz in enumerate(fc):
    axes.plot(levels, gain[row], color=colours[row], linewidth=2, label=f"{hertz:g} Hz")
axes.set(xlabel="Level of the tone (dB SPL)", ylabel="Gain (dB)", title="Gain: output less input", xlim=(0, 110))
axes.grid(alpha=0.25)
axes.legend(title="Channel and tone")
figure.set_label("Gain of five channels over the level of a tone: it is largest for faint tones, and falls.")
plt.show()

# %%
# Output is given on the scale of the input: 0 dB is what the stapes does for 0 dB SPL, at all frequencies with the
# gain that the middle ear has at 1 kHz (:func:`tamt.spl.stapes_velocity`). A real one passes less at high
# frequencies. The gain as such is a convention of the model, whose paths begin with large factors. What counts is its
# change.
#
# The older parameters
# --------------------
#
# ``model='jepsen2008'`` (Jepsen et al., 2008) has the same broken stick and filters of higher orders. In high
# channels its two paths come out nearly in opposite phase. Where they are equally strong they cancel, and **the
# output falls while the input rises**: at 4 kHz from 61 to 75 dB SPL, by up to 0.81 dB per dB. This is at 44.1 kHz, as
# everything here, with levels 0.5 dB apart. How deeply two paths cancel depends on details: at 48 kHz the steepest fall
# is 1.15 dB per dB. This is what AMT 1.6 computes, with whose numbers the filters agree. ``'paulick2024'``, the
# default, has paths at most 75 degrees apart in these channels, and always rises.

phase, fall = {}, {}
frequencies = torch.tensor(fc, dtype=torch.float64)
for model, bank in banks.items():
    linear, nonlinear = (path.diagonal() for path in bank.path_responses(frequencies))
    phase[model] = torch.remainder(torch.rad2deg((linear / nonlinear).angle()), 360)
    phase[model] = torch.minimum(phase[model], 360 - phase[model])
    fall[model] = growth[model].min(-1)
    print(model)
    for row, hertz in enumerate(fc):
        slope, where = fall[model].values[row], levels[1:-1][fall[model].indices[row]]
        apart = f"{hertz:6.0f} Hz: paths {phase[model][row]:4.0f} degrees apart"
        print(f"{apart}, least slope {slope:5.2f} at {where:.1f} dB SPL")

figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharex=True)
for row, hertz in enumerate(fc):
    axes[0].plot(levels, output["jepsen2008"][row], color=colours[row], linewidth=2, label=f"{hertz:g} Hz")
for model, style in (("paulick2024", "--"), ("jepsen2008", "-")):
    axes[1].plot(levels[1:-1], growth[model][4], color=colours[4], linewidth=2, linestyle=style, label=model)
axes[1].axhline(0, color="0.6", linewidth=0.8)
axes[0].set(
    xlabel="Level of the tone (dB SPL)", ylabel="Output (dB re stapes at 0 dB SPL)", title="Output of jepsen2008"
)
axes[1].set(xlabel="Level of the tone (dB SPL)", ylabel="Slope (dB/dB)", title="Growth at 4 kHz")
for panel in axes:
    panel.legend()
    panel.set_xlim(0, 110)
    panel.grid(alpha=0.25)
figure.set_label(
    "Output of the older parameters, which falls at 4 kHz between 61 and 75 dB SPL, and the slopes of both models."
)
plt.show()

# %%
# The same by convolution
# -----------------------
#
# :class:`tamt.FastDRNLFilterbank` convolves with the impulse responses of the linear filters, here with 4096 samples of
# each. Of noise of 60 dB SPL it makes the same output:

noise = tamt.spl.STAPES_GAIN * tamt.spl.spl2pascal(60.0) * torch.randn(fs // 4, dtype=torch.float64)
exact = banks["paulick2024"](noise)
fast = tamt.FastDRNLFilterbank(fc, fs, dtype=torch.float64)(noise)
difference = ((fast - exact).abs().amax(-1) / exact.abs().amax(-1)).tolist()
print("largest difference re maximum:", ", ".join(f"{value:.0e}" for value in difference))

# %%
# References
# ----------
#
# * \M. L. Jepsen, S. D. Ewert, T. Dau, "A computational model of human auditory signal processing and perception", J.
#   Acoust. Soc. Am. 124, 2008.
# * \R. Meddis, L. P. O'Mard, E. A. Lopez-Poveda, "A computational algorithm for computing nonlinear auditory frequency
#   selectivity", J. Acoust. Soc. Am. 109, 2001.
# * \M. A. Ruggero et al., "Basilar-membrane responses to tones at the base of the chinchilla cochlea", J. Acoust. Soc.
#   Am. 101, 1997.
#
# Next: :doc:`/gallery/filters/drnl_tuning`; how sounds get their levels is in :doc:`/guide/levels`, how closely the
# filters agree with AMT's in :doc:`/conformance`.

# sphinx_gallery_start_ignore
# What the text above says.
assert (growth["paulick2024"][:, levels[1:-1] < 20] > 0.999).all()
assert (growth["paulick2024"][:, -1] > 0.85).all()
impaired = tamt.DRNLFilterbank(fc, fs, subject="HIx").io_function([STAPES_LEVEL])[4, 0] - STAPES_LEVEL
assert abs(gain[4, 0] - gain[4, -1] - 41.5) < 1
assert abs(gain[4, 0] - impaired - 42.2) < 1
assert abs(impaired - 34.6) < 1
assert (least[3:] - 0.27).abs().max() < 0.01
assert (least > 0).all()
assert least[0] > 0.3
assert knee[0] > knee[1] > knee[2] > knee[3] > knee[4] - 1
assert abs(knee[3] - knee[4]) < 1
assert 55 < knee[0] < 65
assert (gain[:, 1:] - gain[:, :-1] < 1e-3).all()
assert phase["jepsen2008"][4] > 155
assert (phase["paulick2024"] < 75.5).all()
falling = output["jepsen2008"][4]
assert (falling[(levels >= 61) & (levels <= 75)].diff() < 0).all()
assert falling[levels >= 76].diff().min() > 0
assert abs(fall["jepsen2008"].values[4] + 0.81) < 0.02
assert abs(levels[1:-1][fall["jepsen2008"].indices[4]] - 73) <= 1
faster = tamt.DRNLFilterbank([4000.0], 48000, model="jepsen2008").io_function(levels + STAPES_LEVEL)
assert abs(slopes(faster).min() + 1.15) < 0.03
assert max(difference) < 1e-6
assert (growth["jepsen2008"][:4] > 0).all()
# sphinx_gallery_end_ignore
