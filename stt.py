"""The entry: `python stt.py`."""

from stt_lib.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit()
