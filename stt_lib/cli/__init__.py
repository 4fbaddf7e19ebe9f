"""The command line: options, commands, signals, exit codes."""

from stt_lib.cli.main import main

__all__ = ["main"]
