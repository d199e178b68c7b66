-- Rows of a raster layer as they are kept: the rasters of a tile, cut to it, are one, where they cover it, or the part of it that
-- they cover, once and are alike. Else they are kept as they are.
-- slots: layer (its number), name, stamp (bytes before each raster), stride (of a time series, how far apart its steps are in n; else
--        more than any n)
-- rows: tile_id, layer, n, value, data
-- Bytes are cut and joined, as in warped.sql, whose header tells the format; no pixel changes. Rasters are alike whose bands have the
-- same types (of one width), flags and nodata values, and that come with one value. A raster without bands, made of the first 61 bytes,
-- tells where it lies.
WITH live AS MATERIALIZED (
    SELECT tile.n AS tile, tile.id, tile.ref, l.n / {stride}::int4 AS step, l.n, l.value, l.data
    FROM tiles AS tile
    JOIN pg_temp.pgtiles_live AS l ON l.tile = tile.n AND l.layer = {layer}
)
SELECT g.id AS tile_id, {name}::text AS layer, j.n, j.value, j.data
FROM (SELECT DISTINCT l.tile, l.id, l.step FROM live AS l) AS g
CROSS JOIN LATERAL (
    WITH found AS MATERIALIZED (
        SELECT l.ref, l.n, l.value, substring(l.data FROM {stamp}::int4 + 1) AS wkb
        FROM live AS l
        WHERE l.tile = g.tile AND l.step = g.step
    ),
    placed AS MATERIALIZED (
        SELECT
            m.*,
            round(m.off_x)::int4 AS x, round(m.off_y)::int4 AS y,
            greatest(round(m.off_x)::int4, 0) AS x0, least(round(m.off_x)::int4 + m.w, m.across) AS x1,
            greatest(round(m.off_y)::int4, 0) AS y0, least(round(m.off_y)::int4 + m.h, m.down) AS y1,
            1 + m.width + m.w * m.h * m.width AS band  -- bytes of a band
        FROM (
            SELECT
                h.n, h.value, h.wkb, h.ref, ST_Width(h.head) AS w, ST_Height(h.head) AS h,
                ST_Width(h.ref) AS across, ST_Height(h.ref) AS down,
                (ST_UpperLeftX(h.head) - ST_UpperLeftX(h.ref)) / ST_ScaleX(h.ref) AS off_x,
                (ST_UpperLeftY(h.head) - ST_UpperLeftY(h.ref)) / ST_ScaleY(h.ref) AS off_y,
                ST_SRID(h.head) = ST_SRID(h.ref) AND ST_SkewX(h.head) = 0 AND ST_SkewY(h.head) = 0
                    AND abs(ST_ScaleX(h.head) / ST_ScaleX(h.ref) - 1) * ST_Width(h.head)
                    + abs(ST_ScaleY(h.head) / ST_ScaleY(h.ref) - 1) * ST_Height(h.head) < 1e-3 AS level,
                get_byte(h.wkb, CASE get_byte(h.wkb, 0) WHEN 1 THEN 3 ELSE 4 END)
                    + 256 * get_byte(h.wkb, CASE get_byte(h.wkb, 0) WHEN 1 THEN 4 ELSE 3 END) AS bands,
                (ARRAY[1, 1, 1, 1, 1, 2, 2, 4, 4, 2, 4, 8])[(get_byte(h.wkb, 61) & 15) + 1] AS width
            FROM (
                SELECT f.*, ST_RastFromWKB(substring(f.wkb FOR 3) || '\x0000'::bytea || substring(f.wkb FROM 6 FOR 56)) AS head
                FROM found AS f
                WHERE octet_length(f.wkb) > 61
                OFFSET 0
            ) AS h
            OFFSET 0
        ) AS m
        OFFSET 0
    ),
    met AS MATERIALIZED (  -- those that lie in the tile, each with the heads of its bands where they are of one width
        SELECT
            p.*,
            p.level AND abs(p.off_x - p.x) + abs(p.off_y - p.y) < 1e-3 AS aligned,
            CASE WHEN octet_length(p.wkb) = 61 + p.bands * p.band THEN (
                SELECT CASE WHEN bool_and((ARRAY[1, 1, 1, 1, 1, 2, 2, 4, 4, 2, 4, 8])[(get_byte(b.head, 0) & 15) + 1] = p.width)
                    THEN string_agg(set_byte(b.head, 0, get_byte(b.head, 0) & 223), ''::bytea ORDER BY b.number) END
                FROM (
                    SELECT i.number, substring(p.wkb FROM 62 + (i.number - 1) * p.band FOR 1 + p.width) AS head
                    FROM generate_series(1, p.bands) AS i (number)
                    OFFSET 0
                ) AS b
            ) END AS heads
        FROM placed AS p
        WHERE p.x0 < p.x1 AND p.y0 < p.y1
    ),
    span AS MATERIALIZED (  -- the part of the tile that they cover, and whether they do so once and are alike
        SELECT
            s.*,
            s.aligned AND s.alike AND s.area = (s.x1 - s.x0)::int8 * (s.y1 - s.y0) AND s.bands < 255 AND NOT EXISTS (
                SELECT FROM met AS a JOIN met AS c
                    ON a.n < c.n AND a.x0 < c.x1 AND c.x0 < a.x1 AND a.y0 < c.y1 AND c.y0 < a.y1
            ) AS once
        FROM (
            SELECT
                min(m.x0) AS x0, max(m.x1) AS x1, min(m.y0) AS y0, max(m.y1) AS y1, max(m.n) AS n, min(m.value) AS value,
                min(m.bands) AS bands, min(m.width) AS width, bool_and(m.aligned) AS aligned,
                count(m.heads) = count(*) AND min(m.heads::text) = max(m.heads::text) AND min(m.bands) = max(m.bands)
                    AND min(m.value) = max(m.value) AS alike,
                sum((m.x1 - m.x0)::int8 * (m.y1 - m.y0)) AS area
            FROM met AS m
        ) AS s
    )
    SELECT
        s.n, s.value,
        t.stamp || set_byte(e.head, CASE get_byte(e.head, 0) WHEN 1 THEN 3 ELSE 4 END, s.bands) || (
            SELECT string_agg(c.bytes, ''::bytea ORDER BY c.place)
            FROM (
                SELECT
                    i.number * 65536::int8 * 65536 AS place,
                    substring(f.heads FROM (i.number - 1) * (1 + s.width) + 1 FOR 1 + s.width) AS bytes
                FROM (SELECT m.heads FROM met AS m LIMIT 1) AS f
                CROSS JOIN generate_series(1, s.bands) AS i (number)
                UNION ALL
                SELECT
                    (r.band * 65536::int8 + r.y - s.y0 + 1) * 65536 + m.x0 - s.x0,  -- band, row, column
                    substring(
                        m.wkb
                        FROM 62 + (r.band - 1) * m.band + 1 + m.width + ((r.y - m.y) * m.w + m.x0 - m.x) * m.width
                        FOR (m.x1 - m.x0) * m.width
                    )
                FROM met AS m
                CROSS JOIN LATERAL (  -- one series for bands and rows: of two, the planner would keep one with copies of wkb
                    SELECT 1 + k / (m.y1 - m.y0) AS band, m.y0 + k % (m.y1 - m.y0) AS y
                    FROM generate_series(0, m.bands * (m.y1 - m.y0) - 1) AS k
                ) AS r
                OFFSET 0  -- the fence keeps the rasters' bytes out of the sort that the aggregate makes
            ) AS c
        ) AS data
    FROM span AS s
    CROSS JOIN LATERAL (
        SELECT ST_AsBinary(ST_MakeEmptyRaster(
            s.x1 - s.x0, s.y1 - s.y0, ST_UpperLeftX(m.ref) + s.x0 * ST_ScaleX(m.ref), ST_UpperLeftY(m.ref) + s.y0 * ST_ScaleY(m.ref),
            ST_ScaleX(m.ref), ST_ScaleY(m.ref), 0, 0, ST_SRID(m.ref)
        )) AS head
        FROM met AS m LIMIT 1
    ) AS e
    CROSS JOIN LATERAL (
        SELECT substring(l.data FOR {stamp}::int4) AS stamp FROM live AS l WHERE l.tile = g.tile AND l.step = g.step LIMIT 1
    ) AS t
    WHERE s.once
    UNION ALL
    SELECT l.n, l.value, l.data
    FROM live AS l
    WHERE l.tile = g.tile AND l.step = g.step AND NOT EXISTS (SELECT FROM span AS s WHERE s.once)
) AS j
