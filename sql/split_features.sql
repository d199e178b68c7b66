-- The features that some tiles show, by their ids.
-- slots: source (user_query.sql), geometry (of a row, in the tiles' SRID, buffered where asked)
-- rows: tile, id in text
-- index: whatever serves the user's condition on her geometry column
SELECT DISTINCT f.tile, f.id
FROM (
    SELECT tile.n AS tile, tile.envelope, u.id::text AS id, {geometry} AS geom FROM {source}
    OFFSET 0
) AS f
WHERE ST_Intersects(f.geom, f.envelope)
