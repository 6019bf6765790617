"""`python -m onelogit` is the command `onelogit`."""

import sys

from onelogit.cli.main import main

sys.exit(main())
