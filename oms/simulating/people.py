"""Who works at a simulated desk: traders who place and change orders, officers who stop and release, brokers' staff."""

import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model

from brokers.simulation.demo import DEMO_INSTRUMENTS
from brokers.simulation.market import MarketModel, Walk
from oms.kernel.actor import Actor
from oms.kernel.decimals import text
from oms.kernel.errors import DomainError
from oms.runtime import crash
from oms.simulating.world import Died, World, die
from orders import operations as desk
from orders.domain.algos import AT_ENDS, CATCH_UPS, NAMES, SCHEDULED, TIMES_IN_FORCE, AlgoTerms
from orders.domain.tickets import Terms, Ticket, parse_ticket
from orders.models import Order
from orders.operations import manual
from orders.operations.halting import halt
from orders.states import OPEN
from risk import operations as risk
from risk.domain.scopes import Scope
from risk.models import Halt

TRADERS = {"MAIN": "trader", "EURO": "trader", "ALPHA": "trader2"}
TYPES = ("market", "market", "limit", "limit", "limit", "stop", "stop_limit", "trailing_stop", "trailing_stop_limit",
         "market_if_touched", "limit_if_touched")  # fmt: skip
WORKED = 0.3
"""How many of the orders that could be are worked in slices."""
TIMES = ("day", "day", "gtc", "ioc", "fok", "gtd")


BRACKETS = 0.08
"""The share of orders that bring their exits."""


def _on_tick(price: Decimal, tick: Decimal) -> str:
    return text(max(price // tick * tick, tick))


class Traders:
    """Place what they like, take back and change what is open, and ask again where they got no answer."""

    def __init__(self, world: World, market: MarketModel, rng: random.Random, kill: float) -> None:
        self.world, self.market, self.rng, self.kill = world, market, rng, kill
        users = {u.username: u for u in get_user_model().objects.filter(username__in=set(TRADERS.values()))}
        self.actors = {account: Actor(f"user:{name}", users[name].pk) for account, name in TRADERS.items()}
        self.promised: dict[str, str] = {}  # client order id → the answer's body
        self.asked: Counter[str] = Counter()
        self.made = 0

    def trade(self, count: int) -> None:
        """Place so many orders in one account, and now and then all of them again."""
        account = self.rng.choice(["MAIN", "MAIN", "ALPHA", "EURO"])
        tickets = [self._ticket(account) for _ in range(count)]
        self._place(account, tickets)
        if self.rng.random() < 0.2:
            self._place(account, tickets)
            self.asked["placed again"] += 1

    def _place(self, account: str, tickets: list[Ticket]) -> None:
        """Place, and place again when whoever took the orders died before it answered: one order each, one answer each."""
        point = self.rng.choice(("before_commit", "after_commit")) if self.rng.random() < self.kill else ""
        crash.arm(f"{point}:1" if point else "", end=die)
        try:
            answers = desk.place(tickets, actor=self.actors[account], at=self.world.at)
        except Died:
            crash.arm("")
            self.asked["asked again"] += 1
            answers = desk.place(tickets, actor=self.actors[account], at=self.world.at)
        finally:
            crash.arm("")
        for ticket, answer in zip(tickets, answers, strict=True):
            if answer.problem is not None:
                self.asked[f"problem: {answer.problem.code}"] += 1
                continue
            first = self.promised.setdefault(ticket.client_order_id, answer.body)
            if first != answer.body:
                raise AssertionError(f"{ticket.client_order_id} got two answers")

    def broken_promises(self) -> list[str]:
        """Return client order ids that were answered and are no order, or more than one."""
        found = Counter(Order.objects.filter(origin="desk").values_list("client_order_id", flat=True))
        return [name for name in self.promised if found[name] != 1]

    def _ticket(self, account: str) -> Ticket:
        rng, instrument = self.rng, self.rng.choice(DEMO_INSTRUMENTS)
        walk = self.market.walks[instrument["symbol"]]
        side = rng.choice(["buy", "buy", "buy", "sell", "sell_short", "sell_short"])
        kind = rng.choice(TYPES)
        mid = Decimal(repr(walk.mid))
        self.made += 1
        if rng.random() < BRACKETS:
            return self._bracket(account, walk)
        return Ticket(
            account=account,
            client_order_id=f"S{self.made}",
            symbol=instrument["symbol"],
            side=side,
            quantity=max(1, int(Decimal(rng.randint(1_000, 50_000)) / (mid * walk.lot))) * walk.lot,
            order_type=kind,
            **self._terms(kind, side, mid, walk.tick),
        )

    def _bracket(self, account: str, walk: Walk) -> Ticket:
        """Return an order whose exits follow it: one takes the profit, one stops the loss."""
        mid = Decimal(repr(walk.mid))
        exits = {
            "take_profit": {"limit_price": _on_tick(mid * Decimal("1.0004"), walk.tick)},
            "stop_loss": {"stop_price": _on_tick(mid * Decimal("0.9996"), walk.tick)},
        }
        return self._parsed(account, walk, budget=30_000, **exits)

    def _parsed(self, account: str, walk: Walk, *, budget: int, **more: Any) -> Ticket:
        """Return a market order to buy, read as a program would send it."""
        quantity = (
            max(1, int(Decimal(self.rng.randint(budget // 4, budget)) / (Decimal(repr(walk.mid)) * walk.lot)))
            * walk.lot
        )
        told = {
            "account": account, "client_order_id": f"S{self.made}", "symbol": walk.symbol, "side": "buy",
            "quantity": text(quantity), "order_type": "market",
        }  # fmt: skip
        return parse_ticket(told | more, at=self.world.at)

    def _terms(self, kind: str, side: str, mid: Decimal, tick: Decimal) -> dict[str, Any]:
        """Return prices near the market, and a time in force that goes with the type."""
        rng, up = self.rng, Decimal(1 if side == "buy" else -1)

        def price(low: float, high: float) -> Decimal:
            away = Decimal(str(round(rng.uniform(low, high), 6))) * up
            return max(mid * (1 + away) // tick * tick, tick)

        told: dict[str, Any] = {}
        if kind in ("limit", "stop_limit", "trailing_stop_limit", "limit_if_touched"):
            told["limit_price"] = price(-0.003, 0.002)
        if kind in ("stop", "stop_limit"):
            told["stop_price"] = price(-0.0005, 0.002)
        if kind in ("market_if_touched", "limit_if_touched"):
            told["stop_price"] = price(-0.002, 0.0005)
        if kind.startswith("trailing"):
            told["trail_amount"] = max(mid * Decimal("0.0005") // tick * tick, tick)
        if kind == "trailing_stop_limit":
            told["limit_price"] = price(-0.001, 0.003)
        tif = rng.choice(TIMES if kind in ("market", "limit") else ("day", "gtc"))
        told["time_in_force"] = tif
        if tif == "gtd":
            told["expire_at"] = self.world.at + timedelta(seconds=rng.randint(5, 120))
        if kind in ("market", "limit") and tif in ("day", "gtc") and rng.random() < 0.1:
            told["good_after"] = self.world.at + timedelta(seconds=rng.randint(1, 20))
        elif kind in ("market", "limit") and tif in TIMES_IN_FORCE and rng.random() < WORKED:
            told |= self._work(kind)
        return told

    def _work(self, kind: str) -> dict[str, Any]:
        """Return how an order is worked, for less than a minute."""
        rng = self.rng
        name = rng.choice(NAMES if kind == "limit" else [n for n in NAMES if n != "iceberg"])
        scheduled = name in SCHEDULED
        terms = AlgoTerms(
            name,
            end_at=self.world.at + timedelta(seconds=rng.randint(10, 40)) if scheduled or rng.random() < 0.5 else None,
            slices=rng.randint(2, 8) if scheduled or name == "iceberg" else None,
            participation=Decimal("0.05") if rng.random() < 0.3 else None,
            seed=rng.randint(0, 2**40),
            catch_up=rng.choice(CATCH_UPS) if scheduled else None,
            at_end=rng.choice(AT_ENDS),
        )
        return {"algo": terms}

    def meddle(self) -> None:
        """Cancel or replace a few of what is open."""
        working = list(
            Order.objects.filter(status__in=sorted(OPEN))
            .order_by("id")
            .values_list("id", "quantity", "limit_price", "account__code")
        )
        for order_id, quantity, limit, account in self.rng.sample(working, min(2, len(working))):
            self._change(order_id, quantity, limit, self.actors[account])

    def _change(self, order_id: Any, quantity: Decimal, limit: Decimal | None, actor: Actor) -> None:
        act = self.rng.choice(["cancel", "replace", "replace", "price", "pause", "resume"])
        try:
            if act == "cancel":
                desk.cancel(order_id, actor=actor, at=self.world.at)
            elif act == "pause":
                desk.pause(order_id, actor=actor, at=self.world.at, cancel_working=self.rng.random() < 0.5)
            elif act == "resume":
                desk.resume(order_id, actor=actor, at=self.world.at)
            elif act == "price" and limit is not None:
                desk.replace(order_id, Terms(limit_price=limit), actor=actor, at=self.world.at)
            else:
                wanted = quantity * self.rng.choice((2, 3, 1))
                desk.replace(order_id, Terms(quantity=wanted), actor=actor, at=self.world.at)
            self.asked[act] += 1
        except DomainError as error:
            self.asked[f"{act} refused: {error.code}"] += 1


class Officers:
    """Throw the switch now and then, and let trade what was stopped after a look."""

    def __init__(self, world: World, rng: random.Random, rate: float) -> None:
        self.world, self.rng, self.rate = world, rng, rate
        users = {u.username: u.pk for u in get_user_model().objects.filter(username__in=("risk", "risk2"))}
        self.one, self.other = (Actor(f"user:{n}", users[n]) for n in ("risk", "risk2"))
        self.halts = 0

    def act(self) -> None:
        """Maybe halt; always release what has stood for a while."""
        if self.rng.random() < self.rate:
            scope = self.rng.choice(
                [Scope("all", ""), Scope("account", "MAIN"), Scope("broker", "PRIME"), Scope("symbol", "AAPL")]
            )
            mode = self.rng.choice(["halt", "reduce_only"])
            halt(scope, mode=mode, reason="a drill", actor=self.one, at=self.world.at)
            self.halts += 1
        for engaged in Halt.objects.filter(released_at=None, engaged_at__lt=self.world.at - timedelta(seconds=5)):
            risk.release_halt(engaged.id, reason="looked at", actor=self.other, at=self.world.at)

    def decide(self, decision: str) -> None:
        """Decide on every order that waits for another person."""
        for order_id in list(Order.objects.filter(status="held").order_by("id").values_list("id", flat=True)):
            with suppress(DomainError):  # it waits for its group, or was decided meanwhile
                manual.decide(order_id, decision, reason="looked at", actor=self.other, at=self.world.at)

    def release_all(self) -> None:
        """Let everything trade."""
        for engaged in Halt.objects.filter(released_at=None):
            risk.release_halt(engaged.id, reason="looked at", actor=self.other, at=self.world.at)


class Staff:
    """Brokers' people: correct trades, cancel without being asked, let the line fall silent or go away."""

    def __init__(self, world: World, rng: random.Random, faults: dict[str, float]) -> None:
        self.world, self.rng, self.faults = world, rng, faults
        self.done: Counter[str] = Counter()
        self.back: dict[str, tuple[Any, str]] = {}

    def act(self, *, seconds: tuple[float, float]) -> None:
        """Do one thing at each venue, if chance has it."""
        for code, line in self.world.lines.items():
            venue = line.venue
            if code in self.back and self.back[code][0] <= self.world.at:
                self._come_back(code)
            if self._chance("correct") and (living := venue.living()):
                chosen = self.rng.choice(living)
                price = chosen.price + venue.instruments[chosen.order.symbol].tick_size
                self.done["correct"] += venue.correct(chosen.execution_id, None, price, self.world.at)
            if self._chance("unsolicited") and venue.book.open:
                venue.cancel_by_hand(self.rng.choice(list(venue.book.open.values())), self.world.at)
                self.done["unsolicited"] += 1
            venue.lies.empty_lists = self._chance("empty_lists")
            if code not in self.back:
                for fault in ("outage", "silence"):
                    if self._chance(fault):
                        self._leave(code, fault, seconds)
                        break

    def _chance(self, fault: str) -> bool:
        return self.rng.random() < self.faults.get(fault, 0.0)

    def _leave(self, code: str, fault: str, seconds: tuple[float, float]) -> None:
        line = self.world.lines[code]
        self.back[code] = (self.world.at + timedelta(seconds=self.rng.uniform(*seconds)), fault)
        line.down, line.venue.lies.silence = fault == "outage", fault == "silence"
        self.done[fault] += 1

    def _come_back(self, code: str) -> None:
        line = self.world.lines[code]
        line.down = line.venue.lies.silence = False
        del self.back[code]

    def all_back(self) -> None:
        """Bring every venue back, honest about undoing and listing."""
        for code in list(self.back):
            self._come_back(code)
        for line in self.world.lines.values():
            line.venue.lies.bust = 0.0
            line.venue.lies.empty_lists = False
