"""Ctrl-C in a loop of steps: the first waits for the loop, a second does not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from sparsecbm._base.checkpoint import interrupted_between_steps


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def _python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def looped(done: list[str], presses: int) -> None:
    with interrupted_between_steps() as interrupted:
        while not interrupted():
            for _ in range(presses):
                press()
            done.append("step")
        done.append("kept")


def test_the_first_waits_for_the_end_of_the_step_and_is_then_raised() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        looped(done, presses=1)
    assert done == ["step", "kept"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_is_raised_at_once() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        looped(done, presses=2)
    assert done == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_step_goes_before_a_held_interrupt() -> None:
    def failed() -> None:
        with interrupted_between_steps():
            press()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failed()


def test_the_callers_own_handler_stays() -> None:
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append("mine"))
    with interrupted_between_steps() as interrupted:
        press()
        assert not interrupted()
    assert heard == ["mine"]


def test_other_threads_leave_signals_alone() -> None:
    told = []

    def work() -> None:
        with interrupted_between_steps() as interrupted:
            told.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [(False, signal.default_int_handler)]
