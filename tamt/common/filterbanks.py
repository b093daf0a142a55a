"""The filterbanks and scales under the import path of ``torch_amt.common.filterbanks``."""

from tamt import *  # noqa: F403
from tamt import __all__ as __all__
