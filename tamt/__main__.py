"""``python -m tamt`` is the command ``tamt``."""

import sys

from .cli import main

sys.exit(main())
