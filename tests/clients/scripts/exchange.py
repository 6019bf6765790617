"""What each script gets from the check that runs it, and what it prints."""

import json
import os
import sys

URL, KEY, MODEL = (os.environ[name] for name in ("CHECK_URL", "CHECK_KEY", "CHECK_MODEL"))


def request():
    """The query and the documents."""
    return json.load(sys.stdin)


def respond(**results):
    """Print what the client got."""
    print(json.dumps(results))
