"""The command line: options, commands, signals, exit codes."""

from stt_lib.cli.main import main, run_and_exit

__all__ = ["main", "run_and_exit"]
