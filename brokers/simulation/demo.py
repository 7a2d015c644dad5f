"""The demo desk's world: what trades, and four brokers of very different character."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class DemoInstrument:
    """An instrument of the demo market: where its price starts, how wide and how lively its market is."""

    symbol: str
    name: str
    asset_class: str
    base_currency: str
    currency: str
    tick_size: Decimal
    lot_size: Decimal
    settlement_days: int
    start_price: Decimal
    spread_bps: float  # typical width of the market
    volatility: float  # of a year, as a fraction
    size: Decimal  # typical size on each side
    calendar: str = ""  # exchange whose hours it keeps with `--sessions`


def _equity(symbol: str, name: str, price: str, spread_bps: float, volatility: float, size: str) -> DemoInstrument:
    tick, lot = Decimal("0.01"), Decimal(1)
    return DemoInstrument(
        symbol, name, "equity", "", "USD", tick, lot, 1, Decimal(price), spread_bps, volatility, Decimal(size), "XNYS"
    )


def _pair(
    kind: str, symbol: str, name: str, price: str, tick: str, lot: str, spread_bps: float, volatility: float, size: str
) -> DemoInstrument:
    base, currency = symbol.split("/")
    days = 2 if kind == "fx" else 0
    return DemoInstrument(
        symbol, name, kind, base, currency, Decimal(tick), Decimal(lot), days, Decimal(price), spread_bps, volatility,
        Decimal(size),
    )  # fmt: skip


DEMO_INSTRUMENTS: tuple[DemoInstrument, ...] = (
    _equity("AAPL", "Apple", "232.14", 0.8, 0.26, "900"),
    _equity("MSFT", "Microsoft", "428.60", 0.9, 0.24, "600"),
    _equity("NVDA", "NVIDIA", "141.95", 0.9, 0.48, "1500"),
    _equity("AMZN", "Amazon", "205.30", 0.9, 0.30, "800"),
    _equity("GOOGL", "Alphabet A", "178.42", 0.9, 0.28, "800"),
    _equity("META", "Meta Platforms", "563.10", 1.2, 0.33, "400"),
    _equity("TSLA", "Tesla", "342.80", 1.6, 0.58, "700"),
    _equity("JPM", "JPMorgan Chase", "243.15", 1.2, 0.22, "500"),
    _equity("V", "Visa", "309.70", 1.3, 0.18, "400"),
    _equity("XOM", "Exxon Mobil", "120.35", 1.2, 0.24, "900"),
    _equity("KO", "Coca-Cola", "63.85", 1.6, 0.14, "2500"),
    _equity("SPY", "S&P 500 fund", "590.25", 0.3, 0.15, "3000"),
    _equity("QQQ", "Nasdaq 100 fund", "504.60", 0.4, 0.20, "2000"),
    _equity("IWM", "Russell 2000 fund", "236.45", 0.6, 0.22, "1500"),
    _pair("fx", "EUR/USD", "Euro in US dollars", "1.08420", "0.00001", "1", 0.6, 0.075, "2000000"),
    _pair("fx", "GBP/USD", "Sterling in US dollars", "1.26350", "0.00001", "1", 0.9, 0.085, "1500000"),
    _pair("fx", "USD/JPY", "US dollars in yen", "154.320", "0.001", "1", 0.7, 0.095, "2000000"),
    _pair("fx", "USD/CHF", "US dollars in francs", "0.88640", "0.00001", "1", 1.0, 0.075, "1000000"),
    _pair("fx", "EUR/GBP", "Euro in sterling", "0.85800", "0.00001", "1", 1.1, 0.055, "1000000"),
    _pair("crypto", "BTC/USDT", "Bitcoin in tether", "97450.00", "0.01", "0.000001", 0.8, 0.55, "2.5"),
    _pair("crypto", "ETH/USDT", "Ether in tether", "3385.00", "0.01", "0.00001", 1.0, 0.65, "40"),
    _pair("crypto", "SOL/USDT", "Solana in tether", "241.50", "0.01", "0.001", 1.5, 0.85, "300"),
    _pair("crypto", "XRP/USDT", "XRP in tether", "1.4120", "0.0001", "0.1", 2.0, 0.90, "50000"),
    _pair("crypto", "USDT/USD", "Tether in US dollars", "1.0002", "0.0001", "0.01", 1.0, 0.006, "500000"),
)


def _fees(per_share: str, minimum: str, fx_rate: str, crypto_rate: str, ticket: str = "0") -> dict[str, list[Any]]:
    """Return fee items by asset class: `brokers.domain.fees` says what they mean."""
    ticket_item = [{"kind": "per_order", "amount": ticket}] if ticket != "0" else []
    return {
        "equity": [{"kind": "per_share", "rate": per_share, "min": minimum, "max_percent": "0.01"}, *ticket_item],
        "fx": [{"kind": "percent", "rate": fx_rate}, *ticket_item],
        "crypto": [{"kind": "percent", "rate": crypto_rate}],
    }


DEMO_BROKERS: dict[str, dict[str, Any]] = {
    "PRIME": {
        "name": "Prime Brokerage",
        "adapter": "simulated",
        "settings": {
            "key": "demo-prime",
            "venue": {
                "seed": 11,
                "latency_ms": {"request": [3, 2], "fill": [2, 2]},
                "price_improvement_bps": 0.1,
                "dedupe": "forever",
            },
        },
        "fees": _fees("0.0035", "0.35", "0.00002", "0.0010"),
    },
    "FAST": {
        "name": "Fast Direct Access",
        "adapter": "simulated",
        "settings": {
            "key": "demo-fast",
            "venue": {"seed": 12, "latency_ms": {"request": [0, 0], "fill": [0, 0]}, "depth": 10, "dedupe": "forever"},
        },
        "fees": _fees("0.0070", "1.00", "0.00005", "0.0020"),
    },
    "CHEAP": {
        "name": "Cheap & Slow",
        "adapter": "simulated",
        "settings": {
            "key": "demo-cheap",
            "venue": {
                "seed": 13,
                "latency_ms": {"request": [60, 40], "fill": [250, 150]},
                "reject_rate": 0.05,
                "partial_fill_rate": 0.30,
                "depth": 1,
                "orders_per_second": 50,
                "dedupe": "window",
                "dedupe_window_seconds": 600,
            },
        },
        "fees": _fees("0.0005", "0", "0.00001", "0.0005"),
    },
    "FLAKY": {
        "name": "Flaky Markets",
        "adapter": "simulated",
        "settings": {
            "key": "demo-flaky",
            "venue": {
                "seed": 14,
                "latency_ms": {"request": [15, 30], "fill": [30, 60]},
                "reject_rate": 0.02,
                "partial_fill_rate": 0.20,
                "depth": 3,
                "dedupe": "none",
                "down": {"every_seconds": 300, "for_seconds": 8},
                "lies": {
                    "drop_reply": 0.05,
                    "error_though_accepted": 0.03,
                    "hide_seconds": 2.0,
                    "duplicate_frames": 0.10,
                    "reorder_frames": 0.05,
                    "gap": 0.03,
                    "late_fill_after_cancel": 0.10,
                    "bust": 0.005,
                    "unreadable_frames": 0.01,
                },
            },
        },
        "fees": _fees("0.0010", "0.10", "0.00001", "0.0006"),
    },
}
"""Brokers by code: name, adapter, settings (address left to the market process) and fee items by asset class."""
