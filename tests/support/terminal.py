"""Running the command in a terminal, for what it shows only there."""

import os
import pty
import select
import subprocess
import sys
import termios

from tests.support.world import ROOT, World


def on_a_terminal(world: World, *arguments: str) -> str:
    """Run in a pseudo-terminal; returns all that was written to it."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 160))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "stt.py"), *arguments],
        env={**world.env, "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    process.wait(30)
    os.close(leader)
    return written.decode()
