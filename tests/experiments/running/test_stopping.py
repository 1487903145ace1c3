"""Signals that ask a run to stop: each is obeyed once, at a moment that costs nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.running.stopping import SIGNALS, Stopped, between_steps, stoppable


def test_a_terminal_a_user_and_a_scheduler_are_heard() -> None:
    assert {each.name for each in SIGNALS} == {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_what_is_being_done(number: signal.Signals) -> None:
    with pytest.raises(Stopped, match=number.name), stoppable():
        signal.raise_signal(number)
        raise AssertionError("it went on")


def test_no_handler_of_failures_takes_it_for_one() -> None:
    with pytest.raises(Stopped), stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            raise AssertionError("taken for a failure") from None


@pytest.mark.parametrize("number", SIGNALS)
def test_between_steps_it_waits_to_be_asked_for(number: signal.Signals) -> None:
    done = []
    with pytest.raises(Stopped, match=number.name), between_steps() as stop:
        signal.raise_signal(number)
        done.append("step")
        assert stop.by is number
        stop.raise_if_asked()
    assert done == ["step"]


def test_the_end_of_the_steps_asks_by_itself() -> None:
    with pytest.raises(Stopped), stoppable():
        with between_steps():
            signal.raise_signal(signal.SIGUSR2)
        raise AssertionError("it went on")


def test_a_second_signal_changes_nothing() -> None:
    tidied = []
    with pytest.raises(Stopped, match="SIGUSR2"), stoppable():
        try:
            signal.raise_signal(signal.SIGUSR2)
        finally:
            signal.raise_signal(signal.SIGTERM)
            tidied.append("saved")
    assert tidied == ["saved"]


def test_after_a_stop_the_next_is_heard_again() -> None:
    for _ in range(2):
        with pytest.raises(Stopped), stoppable():
            signal.raise_signal(signal.SIGTERM)


ROOT = Path(__file__).parents[3]
LEFT_ALONE = """
import signal
from experiments.running.stopping import stoppable
with stoppable():
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGINT)
    print("goes on", flush=True)
    signal.raise_signal(signal.SIGTERM)
print("went on")
"""


def test_without_a_terminal_only_what_is_sent_on_purpose_stops() -> None:
    """As `nohup` starts a process, and a shell one in its background."""
    ignored = f"trap '' INT HUP; exec {sys.executable} -c \"$0\""
    done = subprocess.run(["sh", "-c", ignored, LEFT_ALONE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "goes on\n" and "stopped by SIGTERM" in done.stderr


def test_what_was_ignored_is_ignored_afterwards() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)
