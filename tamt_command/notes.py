"""What the help of the command says of its results."""

from .options import MOST_COLUMNS

_NPZ_CONTENTS = """\
A folder stands for the sound files in it and in all folders below it, by the endings of their names (.wav, .flac, .mp3
and whatever else soundfile reads), in sorted order and without what is hidden by a dot. A file given twice is analysed
once. - is standard input, and <(...) of a shell is read as well: both by way of a temporary file. Sampling rates have
to be in the range of --fs. Each sound file NAME.EXT gives NAME.npz and NAME.png. Where several are called NAME, it is
NAME.EXT.npz and so on, and where several are called NAME.EXT, FOLDER-NAME.EXT.npz with as many folders as tell them
apart: names depend on what else is given, so give a corpus as its folder. A result of the same file is replaced; of
another one, and what does not say of which it is, stays and is an error of the file, unless there is --overwrite.
--jobs N works on N files at a time, each by a process of its own. A file that was cut off, so that its header says more
than there is, or of a recorder that stopped before it wrote one, is analysed with a warning. Exit status 1: a file
could not be analysed; 2: the arguments are wrong, whatever the files hold, and none was analysed. The .npz file of a
filterbank holds, for C sound channels, F filters and M frames:
  fc         (F,)       centre frequencies in Hz
  times      (M,)       middle of each frame in seconds
  frames     (C, F, M)  the cochleagram: per frame the mean of what --detector says, by --compression; of a DRNL from
                        outputs in m/s, else re full scale
  detector, compression as the options gave them
  floor      ()         least mean that the compression knows
  hop        ()         samples from one frame to the next
  frame_length ()       samples of a frame
  full_scale ()         what full scale was to the filters: of a DRNL a stapes velocity in m/s, else 1; (C,) where
                        the recording of --calibration has several channels
  fs         ()         sampling rate of the analysis in Hz
  source_fs  ()         sampling rate of the file in Hz
  source, source_path   the sound file as it was given, and its absolute path
  results               the names of the files that hold its results
  cut_off    ()         samples that the header of a file promised that was cut off; 0 of a whole one
  filterbank            the name that the option gave
  subject, model        of a DRNL only: the names that the options gave

That of a spectrum or an excitation pattern has times, fs, source_fs, source, source_path, results and cut_off
likewise, and:
  levels (C, N, F), fc (F,)      in dB SPL: of --spectrum multires in bands as wide as the auditory filters (four per
                                 ERB, so they overlap); of --excitation the excitation
  psd (C, N, B), freqs (B,)      of --spectrum multires: power spectral density in Pa^2/Hz, frequencies in Hz
  freqs, levels (C, N, K)        of --spectrum moore2016: each frame's components in Hz and dB SPL, then 0 and 0
  hop ()                         samples from one frame to the next
  full_scale_db ()               dB SPL of a full-scale sine; (C,) where --calibration has several channels
  spectrum or excitation         the name that the option gave
  field                          of --excitation: the name that --field gave
"""

_FRAME_NOTE = """\
The frames of a filterbank are those of tamt.Cochleagram: frame m begins m hops after the first sample, and holds the
mean P of
  envelope   half the squared envelope of the output: of a steady tone its mean square; gammatone only
  power      the squared output; the square root of the frames is the root mean square
  halfwave   the positive half of the output
and by --compression
  none       P
  db         10 log10 max(P, floor), of halfwave 20 log10
  log        ln max(P, floor)
  NUMBER     (P + floor) ** NUMBER
A hop is the nearest whole number of samples, and a frame as many of these hops as --frame has of --hop. Frames are
whole ones: samples after the last are left out, and a sound shorter than one frame is an error. Frames stay in memory
until they are written: an hour of one channel, 64 filters and hops of 10 ms take 92 MB.
"""

_SPECTRUM_NOTE = """\
--spectrum and --excitation take the place of the filterbank. They work at 32 kHz, to which files of other rates are
resampled as by --fs, and on sound pressure: --full-scale-db or --calibration says how loud a file was. multires and
glasberg2002 (MultiResolutionFFT, ERBIntegration, ExcitationPattern) give a frame every 32 ms; moore2016
(Moore2016Spectrum, Moore2016ExcitationPattern) gives one per --hop, in whole milliseconds (the model itself takes
0.001). moore2016 has two ears, and a mono file goes to both; as they are then alike, C is 1. The sound is analysed
piece by piece, but its results are in memory until they are written: a minute of one channel takes 9 MB with multires,
and with moore2016 and hops of 10 ms up to 46 MB where it is full of components, as noise is.
Frames of moore2016 are whole ones of 64 ms: the middle of the first is 0.032 s after the start of the file, and the
last ends before the file does. Those of multires and glasberg2002 have their middles from 0 s on, and see outside of
the file its reflection.
--excitation moore2016 is the excitation pattern of the model of Moore et al. (2016), by the defaults of
tamt.Moore2016ExcitationPattern: components count up to 4 octaves away (spreading_limit_octaves=4), where the loudness
models, AMT and tamt loudness have them count everywhere (10). The two differ far above loud low sounds: of 100 Hz at
110 dB the channel at 1643 Hz has -120 dB in place of 78.
--excitation glasberg2002 is not that of Glasberg and Moore (2002), but tamt.ExcitationPattern: slopes in dB per ERB
that spread loud sound far towards lower frequencies and little towards higher ones, in reverse to moore2016 and to
masking data.
Levels are those that each model works with, and are not to be compared: of a tone of 1 kHz and 60 dB SPL the excitation
reaches 62 dB with glasberg2002, where overlapping bands add up, and 58 dB with moore2016.
--excitation is that of the sound after the outer and the middle ear (tamt.OuterMiddleEar), whose delay is taken off:
  --field free     the file is sound where the head would be, in front of its source
  --field diffuse  sound where the head would be, from everywhere
  --field eardrum  sound at the eardrum, or of earphones that are flat there
  --field none     what has been through an ear already, or is to go without
"""

_DRNL_NOTE = """\
drnl and fast-drnl filter the velocity of the stapes, and they compress: levels matter. A file does not know how loud
it was; --full-scale-db says it, or --calibration as in tamt loudness --help. No middle ear is before them: all
frequencies get its gain at 1 kHz, where a tone of 100 dB SPL moves the stapes with a peak velocity of 1.2e-3 m/s (Goode
et al. 1994, as in AMT). A real one passes less far from there: 7 dB less at 2 kHz, 15 dB less at 4 kHz.
"""

NOTES = f"{_NPZ_CONTENTS}\n{_FRAME_NOTE}\n{_DRNL_NOTE}\n{_SPECTRUM_NOTE}"

LOUDNESS_NOTES = f"""\
A file does not know how loud it was. Either --full-scale-db says it, or --calibration names the recording of a sound
calibrator, made by the same microphone and gain, whose tone alone is in it; --calibration-db is the level of the tone.
A recording of one channel is for all channels of the files, another one for files of as many channels, each by its own.
What it says of full scale is printed, with a warning where it is no steady sine. Among the files it is left out.

The models are moore2016 (tamt.Moore2016Loudness, the one of ISO 532-3) and glasberg2002 (tamt.Glasberg2002Loudness).
moore2016 takes a file of two channels as the sound at the left and the right ear, and one of one channel as what both
ears hear. glasberg2002 takes one channel, which both ears hear. Of files with more --channel chooses one.
  --field free     the sound where the head would be, in front of its source
  --field diffuse  the sound where the head would be, from everywhere
  --field eardrum  the sound at the eardrum, or of earphones that are flat there
Files of other rates than 32 kHz are resampled. Nothing behind the end of a file is heard: loudness decays for a second
or two, which takes silence at its end to be seen. The edges of a sound that was cut from a longer one are clicks to the
models, and raise the peak: that of a steady tone by 0.5 % at a --hop of 0.001, by 4 % at 0.01. Give such a sound ramps
of 20 ms, or take N5, on which edges have little effect.

A folder stands for the sound files in it and in all folders below it. Each sound file NAME.EXT gives NAME.csv, NAME.npz
and NAME.png; where several are called NAME, for results of other files (--overwrite), for files that were cut off and
for --jobs see tamt analyze --help. A table in the end has of the long-term loudness
of each file the peak, N5, which it exceeds during 5 % of the time, and the mean; in phon these are loudness levels, of
tones of 1 kHz that are as loud. The .csv file has a line for each of S frames: its middle in seconds, and short-term
and long-term loudness in sone and in phon. The .npz file holds, for E ears (1 if both hear the same):
  times              (S,)         middle of each frame in seconds
  short_term, long_term (S,)      loudness in sone
  short_term_ears, long_term_ears (E, S) of moore2016: what each ear contributes
  specific           (E, K, 150)  instantaneous specific loudness in sone/Cam: means over as many frames as leave at
                                  most {MOST_COLUMNS}, of which a picture of any length can be drawn
  specific_times     (K,)         middle of these frames in seconds
  fc                 (150,)       frequencies of the channels of specific loudness in Hz
  peak, n5, mean     ()           of long_term, in sone
  hop                ()           samples from one frame to the next
  fs, source_fs      ()           sampling rate of the model and of the file in Hz
  full_scale_pascal  (E,)         pressure in Pa that a sample of 1 was taken for
  source, source_path             the sound file as it was given, and its absolute path
  results                         the names of the files that hold its results
  cut_off            ()           samples that the header of a file promised that was cut off; 0 of a whole one
  model, field                    what the options gave
The sound goes through the model piece by piece. What stays in memory is loudness over time: of an hour of two ears,
with a frame per millisecond, 86 MB, and copies of it as it is written.
"""
