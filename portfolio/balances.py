"""Caches of the ledger that only ever grow by what is posted: what brokers hold, and cash."""

from collections.abc import Mapping
from decimal import Decimal

from oms.runtime import sql


def add_shares(changes: Mapping[tuple[int, int, int], Decimal]) -> None:
    """Add to what brokers hold, by (account id, instrument id, broker id)."""
    keys = sorted(changes)
    sql.run(
        "INSERT INTO portfolio_brokerposition AS p (account_id, instrument_id, broker_id, quantity) "
        "SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::numeric[]) "
        "ON CONFLICT (account_id, instrument_id, broker_id) DO UPDATE SET quantity = p.quantity + EXCLUDED.quantity",
        [[k[0] for k in keys], [k[1] for k in keys], [k[2] for k in keys], [changes[k] for k in keys]],
    )


def add_cash(changes: Mapping[tuple[int, str, int | None], Decimal]) -> None:
    """Add to cash balances by (account id, currency, id of the broker that has it or None); one statement."""
    keys = sorted(changes, key=lambda k: (k[0], k[1], k[2] or 0))
    sql.run(
        """
        WITH moved AS MATERIALIZED (
          SELECT * FROM unnest(%s::bigint[], %s::varchar[], %s::bigint[], %s::numeric[]) m(account, currency, broker, amount)
        ), there AS (
          INSERT INTO portfolio_brokercash AS b (account_id, broker_id, currency, balance)
          SELECT account, broker, currency, amount FROM moved WHERE broker IS NOT NULL
          ON CONFLICT (account_id, currency, broker_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance
        )
        INSERT INTO portfolio_cashbalance AS c (account_id, currency, balance)
        SELECT account, currency, sum(amount) FROM moved GROUP BY account, currency ORDER BY account, currency
        ON CONFLICT (account_id, currency) DO UPDATE SET balance = c.balance + EXCLUDED.balance
        """,
        [[k[0] for k in keys], [k[1] for k in keys], [k[2] for k in keys], [changes[k] for k in keys]],
    )
