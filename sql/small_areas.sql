-- How many of the areas that labels.sql burns are lost, because they cover no pixel's centre.
-- slots: features (features.sql: of each class, one after the other), singles (singles.sql), most (how many features are looked
--        at), large (CRS units squared: what is no smaller is not looked at)
-- rows: one: how many areas lie wholly inside their tile, how many of them cover no centre
-- index: whatever serves the user's condition on her geometry column
-- A feature that the tile's edge cuts is left out: its pixels may lie in the next tile. One of several parts is lost when all are.
SELECT count(*), count(*) FILTER (WHERE NOT a.kept)
FROM (
    SELECT
        bool_or(CASE
            WHEN ST_Area(d.geom) >= {large}::float8 THEN true
            ELSE NOT ST_BandIsNoData(ST_AsRaster(d.geom, t.ref, '8BUI'::text, 1, 0, false), 1, true)
        END) AS kept
    FROM (
        SELECT f.*, row_number() OVER () AS place
        FROM (
{features}
            LIMIT {most}::int4
        ) AS f
    ) AS r
    JOIN tiles AS t ON t.n = r.tile
    CROSS JOIN LATERAL {singles} AS d
    WHERE r.geom @ r.envelope AND ST_Dimension(r.geom) = 2 AND ST_Area(d.geom) > 0
    GROUP BY r.place
) AS a
