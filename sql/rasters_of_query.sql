-- The user's query for rasters, its rows numbered.
-- slots: query (her text, verbatim), order (empty, or ORDER BY with the layer's order_by), taken (empty, or the column
--        step_time, after a comma), when (empty, or WHERE with a condition on it)
-- rows: her columns, place (1 on top), step_time where asked for
SELECT q.*, row_number() OVER ({order}
) AS place{taken} FROM (
{query}
) AS q{when}
