"""`python -m onelogit` is the command `onelogit`."""

import sys

from onelogit.cli import main

sys.exit(main())
