-- The user's query for rasters, its rows numbered.
-- slots: query (her text, verbatim), order (empty, or ORDER BY with the layer's order_by)
-- rows: her columns, place (1 on top)
SELECT q.*, row_number() OVER ({order}) AS place FROM (
{query}
) AS q
