"""Signals in processes of their own, where nothing of the tests is in the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from jaxad.io import signals

START = """
import gc, os, signal, sys, threading, time, weakref
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from jaxad.io.signals import Stopped, asked, held, listening, poll

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    # Until the handler has run.
    for _ in range(1000):
        pass
"""


def ends(body: str) -> tuple[int, str]:
    """Exit status and output of a program that listens to signals; Stopped is printed and is its status."""
    program = f"{START}\ntry:\n    with listening():\n{textwrap.indent(textwrap.dedent(body), '        ')}\n"
    program += "except Stopped as stopped:\n    print('stopped', flush=True)\n    os._exit(stopped.status)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.replace("\n", " ").strip() + done.stderr.strip()


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_stops_with_its_own_status(name, status):
    assert ends(f"send(signal.{name}); time.sleep(60)") == (status, "stopped")


def test_what_is_held_is_finished_first():
    status, said = ends(
        "with held():\n    with held(): send()\n    time.sleep(1)\n    print('done')\nprint('not reached')"
    )
    assert status == 143
    assert said.startswith("done stopped")
    # The user is told why nothing happens.
    assert "SIGTERM" in said


def test_an_import_is_finished_first(tmp_path):
    (tmp_path / "slow.py").write_text("import __main__\n__main__.send()\n__main__.imported = True\n")
    body = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    try:
        import slow
        time.sleep(60)
    finally:
        print(imported)
    """
    assert ends(body) == (143, "True stopped")


def test_other_threads_neither_stop_nor_hold():
    body = """
    found = []
    def work():
        with held():
            poll()
        found.append(asked())
    with held():
        send()
        thread = threading.Thread(target=work); thread.start(); thread.join()
        print(found == [signal.SIGTERM])
    """
    status, said = ends(body)
    assert (status, said.split(" stopped")[0]) == (143, "True")


SWALLOWERS = {
    "garbage collection": """
        def hit(phase, info):
            gc.callbacks.clear()
            send()
        gc.callbacks.append(hit)
        gc.collect()
        """,
    "finalizer": """
        class Thing:
            def __del__(self): send()
        Thing()
        """,
    "weak reference": """
        class Thing: pass
        thing = Thing()
        reference = weakref.ref(thing, lambda _: send())
        del thing
        """,
    "bare except": """
        try:
            send()
        except BaseException:
            pass
        """,
}


@pytest.mark.parametrize("body", SWALLOWERS.values(), ids=SWALLOWERS.keys())
def test_a_signal_that_is_swallowed_comes_again(body):
    assert ends(textwrap.dedent(body) + "time.sleep(60)") == (143, "stopped")


def test_loops_that_are_closed_on_the_way_out_say_nothing():
    body = """
    class Thing:
        def __del__(self): raise RuntimeError("Event loop is closed")
    with held():
        send()
        Thing()
        print("raised")
    """
    status, said = ends(body)
    assert (status, said.split(" stopped")[0]) == (143, "raised")


def test_a_second_signal_ends_at_once_and_a_repetition_is_none():
    status, said = ends(
        "with held():\n    send(); send(); time.sleep(1); print('waited', flush=True); send(); time.sleep(60)"
    )
    assert status == 143
    assert said.startswith("waited")
    assert "stopped" not in said.split("waited")[1].split("jaxad")[0]
    assert "at once" in said


def test_a_second_signal_ends_at_once_while_a_library_computes():
    body = """
    def press():
        for _ in range(2):
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()
    import ctypes
    ctypes.CDLL(None).sleep(600)
    """
    # The main thread runs no handler while it sleeps there, and other threads get the signal.
    status, _ = ends("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n" + textwrap.dedent(body))
    assert status == 130


def test_a_second_signal_ends_at_once_though_nobody_reads_what_is_said():
    status, said = ends(
        """
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(reader)
        with held():
            send(); time.sleep(1); send(); time.sleep(60)
        """
    )
    assert (status, said) == (143, "")


def test_a_child_that_outlives_the_listener_keeps_nobody_waiting():
    body = """
    reader, writer = os.pipe()
    if not os.fork():
        os.close(writer)
        os.close(1)
        os.close(2)
        os.read(reader, 1)
        os._exit(0)
    """
    # Only when the parent has ended does its end of the pipe close, and the child go.
    assert ends(body) == (0, "")


def test_what_is_ignored_stays_ignored():
    program = (
        START + "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith listening():\n    send(signal.SIGHUP); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_a_forked_process_ends_by_itself_and_leaves_its_parent_alone():
    body = """
    child = os.fork()
    if not child:
        time.sleep(60)
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1], asked())
    """
    assert ends(body) == (0, f"{int(signal.SIGTERM)} None")


def test_handlers_are_restored_and_left_alone_in_other_threads():
    before = [signal.getsignal(number) for number in signals.NUMBERS], sys.unraisablehook
    with signals.listening():
        assert signal.getsignal(signal.SIGTERM) != before[0][1]
        with signals.listening(), signals.held():
            signals.poll()
    assert ([signal.getsignal(number) for number in signals.NUMBERS], sys.unraisablehook) == before
    found = []

    def listen():
        with signals.listening():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before[0][1]]
    assert signals.asked() is None
    signals.poll()
