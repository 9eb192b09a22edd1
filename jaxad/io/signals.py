"""Signals that ask a process to end: obeyed at once where nothing is lost by it, else as soon as that is so.

with listening():            # what the command line does; nothing else installs a handler
    with held():             # work that would be lost: a signal waits
        while not asked(): ...
    poll()                   # raises Stopped where a signal has come

Without `listening`, or in another thread than the main one, all of this does nothing, and signals mean what they always
mean in Python.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ONCE = 0.2
"""Seconds in which a repeated signal counts as the same: `timeout` and some schedulers send it to process and group."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end, and has come to a place where it can.

    Attributes:
        number: of the signal.
        status: exit status that shells and schedulers know it by, 128 + number.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {describe(number)}")
        self.number, self.status = number, 128 + number


def describe(number: int) -> str:
    """What users call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def listening() -> Iterator[None]:
    """Takes SIGINT, SIGTERM and SIGHUP while it lasts, but for those that are ignored, as `nohup` has SIGHUP be.

    The first signal raises `Stopped` in the main thread, or waits for the end of `held` or of an import. Where code
    that runs by accident swallows the exception (a callback of the garbage collector, `__del__`), it is raised again.
    A second signal ends the process at once, also while a library computes.

    Raises:
        Stopped: from anywhere within.
    """
    global _listener
    if threading.current_thread() is not threading.main_thread() or _listener is not None:
        yield
        return
    listener = _Listener()
    listener.start()
    _listener = listener
    try:
        yield
    finally:
        listener.stop()
        _listener = None


def asked() -> int | None:
    """Number of the signal that has come, None without one."""
    return None if _listener is None else _listener.asked


def poll() -> None:
    """Raises `Stopped` where a signal has come, this is the main thread, and nothing is held."""
    if _listener is not None and threading.current_thread() is threading.main_thread():
        _listener.obey()


def stopped(number: int) -> Stopped:
    """What to raise in the main thread where it stops for a signal by itself, so that it is not raised once more."""
    if _listener is None or threading.current_thread() is not threading.main_thread():
        return Stopped(number)
    return _listener.new(number)


@contextmanager
def held() -> Iterator[None]:
    """Work that a signal waits for; on leaving it without an error, `poll`. May be nested."""
    listener = _listener
    if listener is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    listener.depth += 1
    try:
        yield
    finally:
        listener.depth -= 1
    # Not once more where this is part of the way out.
    if not listener.in_flight:
        listener.obey()


class _Listener:
    """The handlers, and a thread that sees every signal at once, whatever the main thread does."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.depth = 0
        self._raised: weakref.ref[Stopped] | None = None
        self._again = False
        self._ended = False

    def start(self) -> None:
        self._process = os.getpid()
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Handlers run between two bytecodes of the main thread; this pipe is written by the signal itself.
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        ignored = [number for number in NUMBERS if signal.getsignal(number) == signal.SIG_IGN]
        self._before = {n: signal.signal(n, self._on_signal) for n in NUMBERS if n not in ignored}
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self.depth += 1
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)
        if self.asked is None and sys.exc_info()[1] is None:
            # On the way out, threads may print until the process has ended.
            sys.unraisablehook = self._unraisable

    def forget(self) -> None:
        """Closes the pipe in a child, which the parent's thread would wait for otherwise."""
        os.close(self._writer)
        os.close(self._reader)

    def obey(self) -> None:
        if self.asked is not None and not self.depth and not self._ended:
            raise self.new(self.asked)

    def new(self, number: int) -> Stopped:
        # Made here: a name for it in the frame that raises it would keep it for as long as it keeps that frame.
        stopped = Stopped(number)
        self._raised = weakref.ref(stopped)
        return stopped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _leave_to_system(number)
        again, self._again = self._again, False
        if self.asked is None or again:
            self.asked = self.asked or number
            # Extension modules crash where an exception meets them while they are imported; it comes again later.
            if not _imports(frame):
                self.obey()

    def _on_unraisable(self, args: Any) -> None:
        # What was reading or writing by an event loop finds it closed on the way out, or once a write has failed.
        late = isinstance(args.exc_value, RuntimeError) and str(args.exc_value) == "Event loop is closed"
        if not (late or isinstance(args.exc_value, Stopped)):
            self._unraisable(args)

    def _watch(self) -> None:
        """Ends the process at the second signal, and sends the first again where it was swallowed."""
        first: float | None = None
        own = 0
        while True:
            # Nothing to look after before the first signal.
            ready, _, _ = select.select([self._reader], [], [], None if first is None else ONCE)
            numbers = os.read(self._reader, 64) if ready else b""
            if ready and not numbers:
                return
            for number in numbers:
                if number not in self._before:
                    continue
                if own:
                    own -= 1
                elif first is None:
                    first = time.monotonic()
                    if self.depth and not self._ended:
                        _say(f"{describe(number)}: saving what is done; once more ends at once")
                elif time.monotonic() - first > ONCE:
                    _say(f"ended at once by {describe(number)}")
                    os._exit(128 + number)
            if not ready and self._is_swallowed():
                own, self._again = own + 1, True
                signal.pthread_kill(threading.main_thread().ident or 0, self.asked or 0)

    @property
    def in_flight(self) -> bool:
        """Whether somebody still holds the exception that was raised."""
        return self._raised is not None and self._raised() is not None

    def _is_swallowed(self) -> bool:
        return self.asked is not None and not (self.in_flight or self.depth or self._again or self._ended)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave_to_system(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _in_child() -> None:
    """A fork has the handlers of its parent, but must neither write into its pipe nor keep it open."""
    global _listener
    if _listener is not None:
        signal.set_wakeup_fd(-1)
        _listener.forget()
        _listener = None


def _say(text: str) -> None:
    # Not by print: the main thread may hold stderr's lock. Its reader may have gone by the same signal.
    with suppress(OSError):
        os.write(2, f"\njaxad: {text}\n".encode())


_listener: _Listener | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
