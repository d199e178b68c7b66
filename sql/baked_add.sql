-- Note the tiles that are to be baked, in their order; those that are noted already stay as they are.
-- slots: tiles (the table), ids, cols, rows, xmins, ymins, xmaxs, ymaxs (arrays), times (the same, or NULL), srid
-- rows: none
-- index: the table's primary key
INSERT INTO {tiles} (tile_id, grid_col, grid_row, time, geom)
SELECT w.id, w.grid_col, w.grid_row, w.time, ST_MakeEnvelope(w.xmin, w.ymin, w.xmax, w.ymax, {srid}::int4)
FROM unnest(
    {ids}::int8[], {cols}::int8[], {rows}::int8[], {times}::timestamptz[], {xmins}::float8[], {ymins}::float8[],
    {xmaxs}::float8[], {ymaxs}::float8[]
) WITH ORDINALITY AS w (id, grid_col, grid_row, time, xmin, ymin, xmax, ymax, ordinality)
ORDER BY w.ordinality
ON CONFLICT (tile_id) DO NOTHING
