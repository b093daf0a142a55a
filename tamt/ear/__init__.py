"""The ear before the cochlea: from sound in the field to what drives the basilar membrane."""

from .outer_middle_ear import OuterMiddleEar

__all__ = ["OuterMiddleEar"]
