"""
Loudness of noise
=================

Noise whose power is spread over a wider band is louder, though a sound level meter reads the same. Within an auditory
filter width makes no difference; beyond it, more filters have to do, each compresses its own part, and the parts add
up. This is loudness summation, from which critical bands were first measured. And two ears hear more than one: how much
more is not a factor of two in :class:`tamt.Moore2016Loudness`, as the ears inhibit each other.
"""

import matplotlib.pyplot as plt
import torch

import tamt

torch.manual_seed(0)
fs, length, level = 32000, 16000, 60.0  # sounds of 0.5 s at 60 dB SPL
centre = 1000.0

# %%
# Bands of noise
# --------------
#
# Each band is cut out of the spectrum of white noise, and set to 60 dB SPL. The widest reaches from 200 to 5000 Hz. All
# are centred on 1 kHz, by the geometric mean of their limits.

widths = torch.tensor([20.0, 40, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920, 2560, 3840, 4800])
lower = (centre**2 + widths**2 / 4).sqrt() - widths / 2  # lower times upper limit is the square of the centre
hertz = torch.fft.rfftfreq(length, 1 / fs)
inside = (hertz >= lower[:, None]) & (hertz <= (lower + widths)[:, None])
spectrum = torch.fft.rfft(torch.randn(8, 1, length)) * inside  # 8 noises of each width
noise = torch.fft.irfft(spectrum, length)
noise = tamt.spl.spl2pascal(level) * noise / noise.square().mean(-1, keepdim=True).sqrt()  # (8, widths, T) in pascal

# %%
# Loudness
# --------
#
# The loudness of a noise is the mean of its short-term loudness, without the onset. Both ears hear the same noise, or
# one ear hears it and the other silence.

model = tamt.Moore2016Loudness(field="free", hop=20)
with torch.no_grad():
    both = model(noise[..., None, :])  # (8, widths, 1, T) is the same in both ears
    one = model(torch.stack((noise, 0 * noise), 2))
binaural = both.short_term[..., 10:].mean((0, 2))
monaural = one.short_term[..., 10:].mean((0, 2))
print(f"{widths[0]:.0f} to {widths[4]:.0f} Hz wide: {binaural[:5].min():.1f} to {binaural[:5].max():.1f} sone")
print(
    f"{widths[-1]:.0f} Hz wide: {binaural[-1]:.1f} sone, {binaural[-1] / binaural[0]:.1f} times that of the narrowest"
)

# %%
# Why
# ---
#
# The loudness of each auditory filter over its centre frequency, the specific loudness, shows it. The narrow band
# excites the filters around 1 kHz. The widest leaves the filter at 1 kHz, 133 Hz wide, less than a thirtieth of the
# power, but still almost half of the specific loudness, so much is it compressed; and it reaches far more filters.
# Those at 3 to 4 kHz answer most, as the ear canal resonates there and filters get wider. Up to a bandwidth of 160 Hz
# loudness is nearly constant, at 4800 Hz it is four times as high. At every bandwidth it is 1.5 times as high in both
# ears as in one.

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
erb = tamt.audfiltbw(centre)
left.axvspan(10, erb, color="0.93", linewidth=0)
left.annotate("within one\nauditory filter", (17, 19), va="top", color="0.35")
left.loglog(widths, binaural, "o-", color="C0", linewidth=2, markersize=4, label="both ears")
left.loglog(widths, monaural, "o-", color="C1", linewidth=2, markersize=4, label="one ear")
left.set_xticks([20, 50, 100, 200, 500, 1000, 2000, 5000], ["20", "50", "100", "200", "500", "1k", "2k", "5k"])
left.set_yticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
left.minorticks_off()
left.set(xlim=(15, 6000), ylim=(2, 21), xlabel="Bandwidth (Hz)", ylabel="Loudness (sone)")
left.set_title("Noise of 60 dB SPL around 1 kHz")
left.grid(alpha=0.3)
left.legend(loc="lower right")

cams = tamt.fc2erb(model.specific.fc)
specific = both.specific[..., 10:, :].mean((0, 2, 3))  # (widths, 150) of either ear
for index, colour in zip((1, 8, 14), plt.colormaps["plasma"]([0.05, 0.45, 0.75]), strict=True):
    right.fill_between(cams, specific[index], color=colour, alpha=0.2, linewidth=0)
    right.plot(cams, specific[index], color=colour, linewidth=2, label=f"{widths[index]:.0f} Hz wide")
ticks = torch.tensor([125.0, 250, 500, 1000, 2000, 4000, 8000])
right.set_xticks(tamt.fc2erb(ticks), ["125", "250", "500", "1k", "2k", "4k", "8k"])
right.set(xlim=(tamt.fc2erb(80.0), tamt.fc2erb(12000.0)), ylim=(0, None), xlabel="Frequency (Hz), in steps of ERB")
right.set(ylabel="Specific loudness (sone/Cam)", title="Specific loudness in one ear, without inhibition")
right.grid(alpha=0.3)
right.legend(loc="upper left")
fig.set_label(
    "Loudness of noise over its bandwidth, in one ear and in both, and the specific loudness of three bandwidths."
)
plt.show()

# %%
# References
# ----------
#
# * \E. Zwicker, G. Flottorp, S. S. Stevens, "Critical band width in loudness summation", J. Acoust. Soc. Am. 29, 1957.
# * \B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher, "A loudness model for time-varying sounds
#   incorporating binaural inhibition", Trends in Hearing 20, 2016.
#
# Next: :doc:`/gallery/loudness/stages_of_loudness` shows the inhibition between the ears; :doc:`/guide/loudness` is the
# guide to the models.

# sphinx_gallery_start_ignore
# What the text above says.
assert abs(lower[-1] - 200) < 0.1
assert abs(erb - 133) < 1
assert binaural[:5].max() / binaural[:5].min() < 1.15  # measured: 1.10
assert (binaural[5:].diff() > 0).all()
assert binaural[-1] / binaural[0] > 3.5
assert (binaural / monaural - 1.5).abs().max() < 0.01
peak = model.specific.fc[specific[1].argmax()]
assert 900 < peak < 1100
at = (model.specific.fc - centre).abs().argmin()
assert specific[8, at] < specific[1, at]
assert 0.4 < specific[14, at] / specific[1, at] < 0.55
assert 3000 < model.specific.fc[specific[14].argmax()] < 4200
assert erb / widths[14] < 1 / 30
# sphinx_gallery_end_ignore
