"""Loudness of sound that varies over time."""

from .attack_release import AttackRelease

__all__ = ["AttackRelease"]
