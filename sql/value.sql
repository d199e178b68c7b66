-- One number a tile, or several, as the user's query gives them.
-- slots: layer (its number), source (user_query.sql), value, place (of a row: its column n, or 0)
-- rows: tile, layer, n (of the row), value (0 where it is NULL), data: the place (int4), and a byte more where the value is NULL
-- index: whatever serves the user's condition
SELECT
    v.tile,
    {layer}::int2 AS layer,
    (row_number() OVER (PARTITION BY v.tile ORDER BY v.place, v.value))::int4 AS n,
    coalesce(v.value::float8, 0) AS value,
    coalesce(int4send(v.place::int4), ''::bytea) || CASE WHEN v.value IS NULL THEN '\x01'::bytea ELSE ''::bytea END AS data
FROM (
    SELECT tile.n AS tile, {value} AS value, {place} AS place
    FROM {source}
) AS v
ORDER BY v.tile, n
