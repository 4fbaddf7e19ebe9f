"""Entry point of a checkout: `python stt.py`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write("stt: Python 3.11 or later is required, not %d.%d\n" % sys.version_info[:2])  # noqa: UP031
    sys.exit(2)

from stt_lib.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit()
