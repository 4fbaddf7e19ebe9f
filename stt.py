"""The entry: `python stt.py`."""

import sys

from stt_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
