"""The demo desk's market and brokers, as data: the seed reads it into rows, the venues play it.

Prices and ticks are in `currency`, `spread_bps` is the usual distance of bid and ask, `volatility` the standard
deviation of a day's return, `size` the usual quantity at the quote. Fee items are what `brokers.domain.fees` charges.
"""

from typing import Any


def _equity(symbol: str, name: str, start: str, spread: str, volatility: str, size: str = "800") -> dict[str, Any]:
    return {
        "symbol": symbol, "name": name, "asset_class": "equity", "base_currency": "", "currency": "USD", "tick_size": "0.01",
        "lot_size": "1", "settlement_days": 1, "start_price": start, "spread_bps": spread, "volatility": volatility,
        "size": size, "calendar": "XNYS",
    }  # fmt: skip


def _pair(
    symbol: str,
    name: str,
    tick: str,
    lot: str,
    start: str,
    spread: str,
    volatility: str,
    size: str,
    settlement_days: int = 2,
) -> dict[str, Any]:
    base, _, currency = symbol.partition("/")
    return {
        "symbol": symbol, "name": name, "asset_class": "fx" if settlement_days else "crypto", "base_currency": base,
        "currency": currency, "tick_size": tick, "lot_size": lot, "settlement_days": settlement_days, "start_price": start,
        "spread_bps": spread, "volatility": volatility, "size": size, "calendar": "",
    }  # fmt: skip


DEMO_INSTRUMENTS: tuple[dict[str, Any], ...] = (
    _equity("AAPL", "Apple", "228.40", "0.9", "0.017", "1200"),
    _equity("MSFT", "Microsoft", "431.10", "0.9", "0.015"),
    _equity("NVDA", "NVIDIA", "138.25", "1.2", "0.030", "2500"),
    _equity("AMZN", "Amazon", "207.80", "1.1", "0.019"),
    _equity("GOOGL", "Alphabet", "176.50", "1.1", "0.018"),
    _equity("META", "Meta Platforms", "563.90", "1.2", "0.021", "500"),
    _equity("TSLA", "Tesla", "321.20", "1.6", "0.036", "1000"),
    _equity("JPM", "JPMorgan Chase", "243.60", "1.3", "0.014"),
    _equity("V", "Visa", "309.70", "1.3", "0.012", "500"),
    _equity("XOM", "Exxon Mobil", "120.15", "1.4", "0.015"),
    _equity("KO", "Coca-Cola", "63.45", "1.9", "0.009", "1500"),
    _equity("SPY", "SPDR S&P 500 ETF", "592.30", "0.3", "0.009", "3000"),
    _equity("QQQ", "Invesco QQQ", "505.40", "0.4", "0.012", "2500"),
    _equity("IWM", "iShares Russell 2000 ETF", "231.60", "0.6", "0.014", "2500"),
    _pair("EUR/USD", "Euro in US dollars", "0.00001", "1", "1.08450", "0.7", "0.0050", "1000000"),
    _pair("USD/JPY", "US dollar in yen", "0.001", "1", "154.320", "0.8", "0.0060", "1000000"),
    _pair("GBP/USD", "Sterling in US dollars", "0.00001", "1", "1.26120", "0.9", "0.0055", "750000"),
    _pair("USD/CHF", "US dollar in Swiss francs", "0.00001", "1", "0.88340", "1.2", "0.0048", "500000"),
    _pair("EUR/GBP", "Euro in sterling", "0.00001", "1", "0.85990", "1.1", "0.0042", "500000"),
    _pair("BTC/USDT", "Bitcoin in Tether", "0.01", "0.000001", "96420.00", "0.5", "0.028", "4", 0),
    _pair("ETH/USDT", "Ether in Tether", "0.01", "0.00001", "3380.50", "0.7", "0.036", "60", 0),
    _pair("SOL/USDT", "Solana in Tether", "0.01", "0.001", "243.10", "1.2", "0.048", "900", 0),
    _pair("XRP/USDT", "XRP in Tether", "0.0001", "0.1", "1.4210", "1.5", "0.052", "40000", 0),
    _pair("USDT/USD", "Tether in US dollars", "0.0001", "0.01", "1.0000", "1.0", "0.0004", "2000000", 0),
)
"""What trades on the demo desk; equities keep the hours of their exchange only where the desk is started with `--sessions`."""


def _item(kind: str, basis: str, rate: str, **more: str) -> dict[str, str]:
    return {"kind": kind, "basis": basis, "rate": rate, **more}


DEMO_BROKERS: dict[str, dict[str, Any]] = {
    "PRIME": {
        "name": "Prime Execution",
        "venue": {
            "seed": 11,
            "latency_ms": {"ack": [2, 1], "fill": [4, 2]},
            "price_improvement_bps": 0.2,
            "partial_fill_rate": 0.03,
            "oco": True,
        },
        "fees": {
            "equity": [_item("commission", "per_share", "0.0020", min="0.20", max_percent="0.5")],
            "fx": [_item("commission", "percent", "0.0020")],
            "crypto": [_item("commission", "percent", "0.0500")],
        },
    },
    "FAST": {
        "name": "Fast Markets",
        "venue": {"seed": 22, "latency_ms": {"ack": [0.2, 0.1], "fill": [0.3, 0.2]}, "price_improvement_bps": 0.05},
        "fees": {
            "equity": [_item("commission", "per_share", "0.0065", min="1.00", max_percent="1")],
            "fx": [_item("commission", "percent", "0.0040", min="0.50")],
            "crypto": [_item("commission", "percent", "0.1000")],
        },
    },
    "CHEAP": {
        "name": "Cheap Street",
        "venue": {
            "seed": 33,
            "latency_ms": {"ack": [40, 25], "fill": [90, 60]},
            "reject_rate": 0.04,
            "partial_fill_rate": 0.15,
            "depth": 5.0,
        },
        "fees": {
            "equity": [_item("commission", "per_order", "0")],
            "fx": [_item("commission", "percent", "0.0010")],
            "crypto": [_item("commission", "percent", "0.0300")],
        },
    },
    "FLAKY": {
        "name": "Flaky Brothers",
        "venue": {
            "seed": 44,
            "latency_ms": {"ack": [8, 6], "fill": [15, 10]},
            "reject_rate": 0.02,
            "partial_fill_rate": 0.10,
            "visibility_delay_seconds": 2.0,
            "down": {"every_seconds": 600, "for_seconds": 12},
            "lies": {
                "drop_reply": 0.05,
                "error_though_accepted": 0.03,
                "duplicate_reports": 0.10,
                "reorder_reports": 0.05,
                "gap": 0.02,
                "hide_orders": 0.05,
                "hide_seconds": 1.5,
                "late_fill_after_cancel": 0.05,
                "bust": 0.002,
            },
        },
        "fees": {
            "equity": [_item("commission", "per_share", "0.0030", min="0.35")],
            "fx": [_item("commission", "percent", "0.0020")],
            "crypto": [_item("commission", "percent", "0.0600")],
        },
    },
}
"""Four brokers a router can tell apart: cheap and good, dear and quick, slow and choosy, and one that lies."""
