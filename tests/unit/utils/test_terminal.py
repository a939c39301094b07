"""Programs end when their terminal does, unless `nohup` says otherwise."""

from __future__ import annotations

import signal

import pytest

from dxai.utils import terminal


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP,), (signal.SIGINT, signal.SIGHUP)])
def test_only_an_ignored_hangup_stays_ignored(ignored: tuple[signal.Signals, ...]) -> None:
    """SIGINT is handled although a script starts its background programs ignoring it."""
    signals = (signal.SIGINT, *terminal.ENDS)
    before = {number: signal.getsignal(number) for number in signals}
    try:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

        def leave(*_: object) -> None:
            pass

        found = terminal.handle(signals, leave)
        handled = {number for number in signals if signal.getsignal(number) is leave}
        assert handled == found.keys() == {*signals} - ({*ignored} & {signal.SIGHUP})
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
