-- Keep values of tiles beside those of other runs; those of the same tiles and run are replaced.
-- slots: table, run, tiles, cols, rows, values (arrays), xmins, ymins, xmaxs, ymaxs (the same, CRS units), srid
-- rows: none
-- index: the primary key (run, tile)
INSERT INTO {table} AS kept (run, tile, col, "row", value, geom)
SELECT {run}::text, t.tile, t.col, t."row", t.value, ST_MakeEnvelope(t.xmin, t.ymin, t.xmax, t.ymax, {srid}::int4)
FROM unnest(
    {tiles}::int8[], {cols}::int8[], {rows}::int8[], {values}::float8[],
    {xmins}::float8[], {ymins}::float8[], {xmaxs}::float8[], {ymaxs}::float8[]
) AS t (tile, col, "row", value, xmin, ymin, xmax, ymax)
ON CONFLICT (run, tile) DO UPDATE
SET col = excluded.col, "row" = excluded."row", value = excluded.value, geom = excluded.geom
