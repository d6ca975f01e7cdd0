"""Ctrl-C in a loop of steps: the first waits for the loop, a second does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from sparsecbm._base.checkpoint import interrupted_between_steps


def looped(done: list[str], presses: int, press: Callable[[], None]) -> None:
    with interrupted_between_steps() as interrupted:
        while not interrupted():
            for _ in range(presses):
                press()
            done.append("step")
        done.append("kept")


def test_the_first_waits_for_the_end_of_the_step_and_is_then_raised(ctrl_c: Callable[[], None]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        looped(done, 1, ctrl_c)
    assert done == ["step", "kept"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_is_raised_at_once(ctrl_c: Callable[[], None]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        looped(done, 2, ctrl_c)
    assert done == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_step_goes_before_a_held_interrupt(ctrl_c: Callable[[], None]) -> None:
    def failed() -> None:
        with interrupted_between_steps():
            ctrl_c()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failed()


def test_the_callers_own_handler_stays(ctrl_c: Callable[[], None]) -> None:
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append("mine"))
    with interrupted_between_steps() as interrupted:
        ctrl_c()
        assert not interrupted()
    assert heard == ["mine"]


def test_other_threads_leave_signals_alone(ctrl_c: Callable[[], None]) -> None:
    told = []

    def work() -> None:
        with interrupted_between_steps() as interrupted:
            told.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [(False, signal.default_int_handler)]
