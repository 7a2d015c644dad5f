"""A counterparty on QuickFIX, an engine that is not ours: `python -m tests.fix.quickfix_acceptor PORT BEGIN_STRING FOLDER`.

It takes every order, fills half of it, confirms cancels and replaces, and answers questions. Its numbers live in the folder. Each
message that the application sees is written to standard output.
"""

# ruff: noqa: N802 - the engine calls its application by these names

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import quickfix as fix

CONFIG = """[DEFAULT]
ConnectionType=acceptor
FileStorePath={folder}/store
FileLogPath={folder}/log
StartTime=00:00:00
EndTime=00:00:00
UseDataDictionary=N
ValidateFieldsOutOfOrder=Y
SocketAcceptPort={port}
SocketReuseAddress=Y
[SESSION]
BeginString={begin}
SenderCompID=BROKER
TargetCompID=DESK
"""


class Broker(fix.Application):
    """What QuickFIX calls."""

    def __init__(self, begin: str) -> None:
        super().__init__()
        self.is_44 = begin == "FIX.4.4"
        self.orders: dict[str, dict[int, str]] = {}
        self.count = time.time_ns()  # ExecIDs are never used again, over restarts too

    def onCreate(self, session: object) -> None:
        pass

    def onLogon(self, session: object) -> None:
        say(event="logon")

    def onLogout(self, session: object) -> None:
        say(event="logout")

    def toAdmin(self, message: object, session: object) -> None:
        pass

    def fromAdmin(self, message: fix.Message, session: object) -> None:
        say(admin=message.toString().replace("\x01", "|"))

    def toApp(self, message: object, session: object) -> None:
        pass

    def fromApp(self, message: fix.Message, session: object) -> None:
        kind = message.getHeader().getField(35)
        got = {
            tag: message.getField(tag) for tag in (1, 11, 37, 38, 41, 44, 54, 55, 584, 790) if message.isSetField(tag)
        }
        say(app=kind, **{str(t): v for t, v in got.items()})
        answers: dict[str, Callable[[dict[int, str], object], None]] = {
            "D": self.new, "F": self.cancel, "G": self.replace, "H": self.status, "AF": self.all,
        }  # fmt: skip
        answers[kind](got, session)

    def new(self, m: dict[int, str], session: object) -> None:
        self.orders[m[11]] = m | {14: "0"}
        self.report(m, session, "0", "0")
        half = str(int(m[38]) // 2)
        self.orders[m[11]][14] = half
        self.report(m, session, "F" if self.is_44 else "1", "1", {32: half, 31: m.get(44, "100")})

    def cancel(self, m: dict[int, str], session: object) -> None:
        order = self.orders[m[41]]
        self.orders[m[11]] = order | {11: m[11], 41: m[41]}
        self.report(self.orders[m[11]], session, "4", "4", {151: "0"})

    def replace(self, m: dict[int, str], session: object) -> None:
        self.orders[m[11]] = m | {14: self.orders[m[41]][14]}
        self.report(self.orders[m[11]], session, "5", "1" if self.is_44 else "5")

    def status(self, m: dict[int, str], session: object) -> None:
        known = self.orders.get(m[11])
        more = {790: m[790]} if 790 in m else {}
        if known is None:
            self.report(m | {38: "0", 14: "0"}, session, "I", "8", {103: "5", 37: "NONE"} | more)
        else:
            self.report(known, session, "I", "1", more)

    def all(self, m: dict[int, str], session: object) -> None:
        for n, order in enumerate(self.orders.values(), 1):
            last = "Y" if n == len(self.orders) else "N"
            self.report(order, session, "I", "1", {584: m[584], 911: str(len(self.orders)), 912: last})

    def report(
        self, m: dict[int, str], session: object, exec_type: str, status: str, more: dict[int, str] | None = None
    ) -> None:
        self.count += 1
        filled = self.orders.get(m[11], m).get(14, "0")
        fields = {
            37: f"Q-{m.get(41, m[11])[-10:]}", 11: m[11], 17: f"QX{self.count}", 150: exec_type, 39: status, 55: m.get(55, ""),
            54: m.get(54, "1"), 38: m[38], 151: str(int(m[38]) - int(filled)), 14: filled, 6: "0",
        } | (more or {})  # fmt: skip
        if not self.is_44:
            fields[20] = "3" if exec_type == "I" else "0"
            fields[150] = status if exec_type == "I" else exec_type
        if 41 in m:
            fields[41] = m[41]
        told = fix.Message()
        told.getHeader().setField(fix.MsgType("8"))
        for tag, value in fields.items():
            told.setField(tag, value)
        told.setField(fix.TransactTime())
        fix.Session.sendToTarget(told, session)


def say(**what: str) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    """Accept until the standard input ends."""
    port, begin, folder = sys.argv[1:]
    config = Path(folder) / "acceptor.cfg"
    config.write_text(CONFIG.format(port=port, begin=begin, folder=folder))
    settings, broker = fix.SessionSettings(str(config)), Broker(begin)
    acceptor = fix.SocketAcceptor(broker, fix.FileStoreFactory(settings), settings, fix.FileLogFactory(settings))
    acceptor.start()
    say(event="ready")
    sys.stdin.read()
    acceptor.stop()


if __name__ == "__main__":
    main()
