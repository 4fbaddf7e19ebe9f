"""Ports of this machine."""

import random
import socket

BELOW_THE_KERNEL_S = range(20_000, 32_768)
"""Outgoing connections get none of these, on Linux and elsewhere: whoever finds one free can still
listen on it a while later. Ray hands out those below to its workers."""


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    candidates = random.SystemRandom().sample(BELOW_THE_KERNEL_S, len(BELOW_THE_KERNEL_S))
    return next(port for port in candidates if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
