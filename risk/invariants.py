"""What must always hold of risk's rows; each statement returns what breaks it, so none is good."""

PREDICATES: dict[str, str] = {
    "I14_exposure_is_sum_of_holds": """
        SELECT account_id, instrument_id FROM (
          SELECT account_id, instrument_id, sum(buying) AS buying, sum(selling) AS selling, sum(amount) AS amount FROM (
            SELECT account_id, instrument_id,
              coalesce(max(open_quantity) FILTER (WHERE side = 'buy'), 0) AS buying,
              coalesce(max(open_quantity) FILTER (WHERE side <> 'buy'), 0) AS selling,
              max(round(open_quantity * unit_amount, 10)) AS amount
            FROM risk_hold WHERE open_quantity > 0 GROUP BY account_id, instrument_id, coalesce(oco, id)
          ) worst GROUP BY account_id, instrument_id
        ) h FULL JOIN risk_exposure e USING (account_id, instrument_id)
        WHERE (coalesce(h.buying, 0), coalesce(h.selling, 0), coalesce(h.amount, 0))
           <> (coalesce(e.buying, 0), coalesce(e.selling, 0), coalesce(e.amount, 0))
    """,
    "I13_risk_numbers_are_finite": """
        SELECT id::text FROM risk_hold WHERE 'NaN' IN (open_quantity, unit_amount)
        UNION ALL SELECT id::text FROM risk_exposure WHERE 'NaN' IN (buying, selling, amount)
        UNION ALL SELECT id::text FROM risk_limit WHERE value = 'NaN'
    """,
    "I28_hold_only_after_an_approval": """
        SELECT h.id FROM risk_hold h
        WHERE NOT EXISTS (SELECT 1 FROM risk_riskcheck c WHERE c.id = h.id AND c.approved)
          AND NOT EXISTS (SELECT 1 FROM risk_riskcheck c WHERE c.again_of = h.id AND c.approved)
    """,
    "I29_second_person_is_another": """
        SELECT id FROM risk_limit WHERE approver_id IS NOT NULL AND approver_id = maker_id
        UNION ALL SELECT id FROM risk_approval WHERE approver_id IS NOT NULL AND approver_id = maker_id
        UNION ALL SELECT id FROM risk_halt WHERE released_at IS NOT NULL AND released_by = engaged_by
    """,
}
