-- The row of a table that lies nearest to the tile: to explain an empty one.
-- slots: table, hull and key (as in why_reach.sql), tile (as there)
-- rows: key, ground metres from the tile on the ellipsoid; none where the table is empty
-- index: GiST on hull, which serves <->
SELECT
    n.key,
    ST_Distance(ST_Transform(n.geom, 4326)::geography, ST_Transform(tile.envelope, 4326)::geography)
FROM {tile} AS tile
CROSS JOIN LATERAL (
    SELECT {key} AS key, {hull} AS geom
    FROM {table} AS s
    WHERE {hull} IS NOT NULL
    ORDER BY {hull} <-> tile.geom
    LIMIT 1
) AS n
