"""SIGINT, SIGTERM and SIGHUP: the first asks for a clean stop, the second ends the process soon.

SIGUSR1 writes what every thread is doing to the console, for a process that seems to hang.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from click.exceptions import Exit

from stt_lib.cli import exit_codes
from stt_lib.errors import Stopped, SttError
from stt_lib.telemetry.events import Event

HURRY_SECONDS: Final = 1.0
"""Seconds. Time to release claims after a second signal."""

log = logging.getLogger("stt")


class StopSignal:
    """Which signal asked the process to stop, if any.

    The interpreter writes the number of each signal to a socket, and a thread reads it there.
    Nothing happens in the handlers themselves, which might interrupt code that holds a lock.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.number: int | None = None
        self.release: Callable[[], None] = lambda: None
        """Releases what the process holds, after a second signal."""

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals within the block; restore the old handlers after it.

        Raises:
            Exit: the block raised `Stopped`; with the exit code of the signal.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        threading.Thread(None, self._watch, "stt-signals", (reader,), daemon=True).start()
        old = {number: signal.signal(number, lambda *_: None) for number in _stopping()}
        old_writer = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # no console
            faulthandler.register(signal.SIGUSR1)
        try:
            yield
        except Stopped:
            raise Exit(exit_codes.by_signal(self.number or signal.SIGINT)) from None
        finally:
            faulthandler.unregister(signal.SIGUSR1)
            signal.set_wakeup_fd(old_writer)
            for number, handler in old.items():
                signal.signal(number, handler)
            writer.close()

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            while number := reader.recv(1):
                self._arrived(number[0])

    def _arrived(self, number: int) -> None:
        """End the process within a second of a second signal, even if terminal or MongoDB block."""
        if self.number is None:
            self.number = number
            self.event.set()
            return
        hurrying = threading.Thread(target=self._release, daemon=True)
        hurrying.start()
        hurrying.join(HURRY_SECONDS)
        os._exit(exit_codes.by_signal(number))

    def _release(self) -> None:
        text = "Stopping at once after a second signal: releasing claims"
        log.warning(text, extra=Event.STOPPING.of())
        with contextlib.suppress(SttError, Stopped):  # then the claims expire
            self.release()


def _stopping() -> Iterator[int]:
    """The signals to handle; SIGHUP stays ignored under nohup."""
    yield from (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP
