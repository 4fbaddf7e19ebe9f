"""Entry point of a checkout: `python stt.py`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write("stt: Python 3.11 or later is required, not %d.%d\n" % sys.version_info[:2])  # noqa: UP031
    sys.exit(2)

try:
    from stt_lib.cli import run_and_exit
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("stt_lib"):
        raise
    sys.stderr.write(
        f"stt: the package {error.name} is not installed for this Python: "
        "run `make install` and use .venv/bin/python, or run `pip install -r requirements.txt`\n"
    )
    sys.exit(2)

if __name__ == "__main__":
    run_and_exit()
