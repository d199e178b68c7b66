-- The warped path: the source's rasters around each tile are joined, then resampled or reprojected onto the tile's own pixels.
-- slots: layer (its number), tile (tile_here.sql or tile_reach.sql), source (user_query.sql, for one tile, around
--        stored_blocks.sql or rasters_of_query.sql), pixels (the raster of a row, or the bands asked for), count (of bands),
--        width (bytes a pixel; 0 where bands differ in type or the source is rotated), type (the bands' one, by its number in WKB),
--        bands (which of them), types (theirs), last (of them), whole (whether a row has no more), srid, skew_x, skew_y, kind (all that, in
--        words, of the rasters that the layer was opened on), origin_x, origin_y, scale_x, scale_y (the
--        source's lattice, in its CRS units, scale_y below 0 where north is up), left, right, above, below (source pixels that
--        the resampling kernel needs around a tile), resampling, max_error (of GDAL's approximating transformer, in pixels; 0 is exact)
--        place (affine.sql: where the source's pixels lie; else the source's own lattice)
--        holes (an addbandarg[]: for each band of the source a wider pixel type and a nodata value that no pixel can have)
--        this (the tiles of it: around; of a time series a row a step), n (of a row), stamp (bytes before a fragment)
-- rows: tile, layer, n, value (1 joined by bytes; 2 so, with a last band that is 0 where there is no source; 3 by ST_Union),
--       fragment: on the tile's lattice, but not cut to its extent. Or what is wrong, in words: value 4 and a raster of another
--       kind than the layer was opened on; 5 and the pixels of a window that no raster can hold; 6 the same, because the tile
--       lies across the antimeridian, and so on both ends of a source in degrees
-- index: see source
-- They are joined before they are warped: warped one by one, their seams would show. ST_Union joins pixel by pixel, 20 to 40 ms a
-- tile. Where each pixel of the window comes from one raster, its bytes are cut from the rasters' WKB row by row and strung
-- together, which takes 2 ms; where rasters overlap or leave holes, ST_Union does it, the top raster last.
-- ST_Union's pixel type and nodata value are the first raster's, and each raster's own nodata value is a hole: so the first is
-- one pixel of a wider type, and holes are told from pixels of any value.
-- Where the source ends within the window, and a band has no nodata value to say so, a last band is joined to them.
-- ST_AsBinary(…, true) brings the pixels also where they lie in a file on the server.
-- The format is raster/doc/RFC2-WellKnownBinaryFormat of PostGIS: 61 bytes of header, with the number of bands in bytes 4 and 5;
-- then for each band a byte of flags (0x20, all nodata, is cleared), the nodata value, and the pixels, row by row.
WITH around AS MATERIALIZED (
    SELECT * FROM {tile} AS t
)
SELECT
    this.n AS tile,
    {layer}::int2 AS layer,
    {n}::int4 AS n,
    joined.how::float8 AS value,
    {stamp}CASE
        WHEN joined.said IS NULL
        THEN ST_Transform(joined.rast, this.ref, {resampling}::text, {max_error}::float8)::bytea
        ELSE convert_to(joined.said, 'UTF8')
    END AS fragment
FROM {this} AS this
CROSS JOIN LATERAL (
    WITH blocks AS MATERIALIZED (
        SELECT
            r.rast, r.place, r.x, r.y, r.w, r.h, (r.off_x + r.off_y) < 1e-3 AS aligned,
            CASE WHEN {width}::int4 > 0 THEN ST_AsBinary({pixels}, true) END AS wkb
        FROM (
            SELECT
                f.rast, f.place, f.w, f.h, round(f.x)::int8 AS x, round(f.y)::int8 AS y,
                abs(f.x - round(f.x)) AS off_x, abs(f.y - round(f.y)) AS off_y
            FROM (
                SELECT
                    u.rast::raster AS rast, u.place,
                    (ST_UpperLeftX(u.rast::raster) - {origin_x}::float8) / {scale_x}::float8 AS x,
                    (ST_UpperLeftY(u.rast::raster) - {origin_y}::float8) / {scale_y}::float8 AS y,
                    ST_Width(u.rast::raster) AS w, ST_Height(u.rast::raster) AS h
                FROM {source}
                WHERE u.rast IS NOT NULL
                OFFSET 0
            ) AS f
        ) AS r
    ),
    alike AS MATERIALIZED (  -- the bytes that a header begins with and goes on with after its place, where nothing differs
        SELECT substring(h.head FROM 6 FOR 16) AS scale, substring(h.head FROM 38 FOR 20) AS skew
        FROM (
            SELECT ST_AsBinary(ST_MakeEmptyRaster(
                1, 1, 0, 0, {scale_x}::float8, {scale_y}::float8, {skew_x}::float8, {skew_y}::float8, {srid}::int4
            )) AS head
        ) AS h
    ),
    other AS MATERIALIZED (  -- a row of another kind; a length that is right says that each band is where it is looked for
        SELECT b.rast
        FROM blocks AS b CROSS JOIN alike AS a
        WHERE NOT (
            CASE
                WHEN {width}::int4 > 0
                THEN octet_length(b.wkb) = 61 + {count}::int4 * (1 + {width} + b.w * b.h * {width}) AND (
                    SELECT bool_and(
                        get_byte(b.wkb, (61 + (i.band - 1) * (1 + {width} + b.w * b.h * {width}))::int4) & 15 = {type}::int4
                    )
                    FROM generate_series(1, {count}::int4) AS i (band)
                )
                WHEN ST_NumBands(b.rast) < {last}::int4 OR ({whole} AND ST_NumBands(b.rast) > {last}::int4) THEN false
                ELSE ARRAY(SELECT ST_BandPixelType(b.rast, i.band) FROM unnest({bands}::int4[]) AS i (band)) = {types}::text[]
            END
            AND CASE
                WHEN substring(b.wkb FROM 6 FOR 16) = a.scale AND substring(b.wkb FROM 38 FOR 20) = a.skew THEN true
                ELSE abs(ST_ScaleX(b.rast) - {scale_x}::float8) * b.w < 1e-3 * abs({scale_x}::float8)
                    AND abs(ST_ScaleY(b.rast) - {scale_y}::float8) * b.h < 1e-3 * abs({scale_y}::float8)
                    AND abs(ST_SkewX(b.rast) - {skew_x}::float8) * b.h < 1e-3 * abs({scale_x}::float8)
                    AND abs(ST_SkewY(b.rast) - {skew_y}::float8) * b.w < 1e-3 * abs({scale_y}::float8)
                    AND ST_SRID(b.rast) = {srid}::int4
            END
        )
        ORDER BY b.place
        LIMIT 1
    ),
    need AS (  -- the window, in source pixels
        SELECT
            floor(least(p.x0, p.x1))::int8 - {left}::int4 AS x0, ceil(greatest(p.x0, p.x1))::int8 + {right}::int4 AS x1,
            floor(least(p.y0, p.y1))::int8 - {above}::int4 AS y0, ceil(greatest(p.y0, p.y1))::int8 + {below}::int4 AS y1
        FROM (
            SELECT
                (ST_XMin(this.geom) - {origin_x}::float8) / {scale_x}::float8 AS x0,
                (ST_XMax(this.geom) - {origin_x}::float8) / {scale_x}::float8 AS x1,
                (ST_YMin(this.geom) - {origin_y}::float8) / {scale_y}::float8 AS y0,
                (ST_YMax(this.geom) - {origin_y}::float8) / {scale_y}::float8 AS y1
        ) AS p
    ),
    span AS MATERIALIZED (  -- the part of it that there is
        SELECT
            greatest(n.x0, min(b.x)) AS x0, least(n.x1, max(b.x + b.w)) AS x1,
            greatest(n.y0, min(b.y)) AS y0, least(n.y1, max(b.y + b.h)) AS y1
        FROM blocks AS b CROSS JOIN need AS n
        GROUP BY n.x0, n.x1, n.y0, n.y1
    ),
    cover AS MATERIALIZED (  -- whether each pixel of it comes from one raster, and all of them are alike
        SELECT
            {width}::int4 > 0 AND bool_and(b.aligned)
            AND sum(greatest(least(b.x + b.w, s.x1) - greatest(b.x, s.x0), 0) * greatest(least(b.y + b.h, s.y1) - greatest(b.y, s.y0), 0))
                = (min(s.x1) - min(s.x0)) * (min(s.y1) - min(s.y0))
            AND NOT EXISTS (
                SELECT FROM blocks AS a JOIN blocks AS c
                    ON a.place < c.place AND a.x < c.x + c.w AND c.x < a.x + a.w AND a.y < c.y + c.h AND c.y < a.y + a.h
            )
            AND (
                SELECT bool_and(k.same)
                FROM (
                    SELECT
                        count(DISTINCT set_byte(k.head, 0, get_byte(k.head, 0) & 223)) = 1 AS same
                    FROM (
                        SELECT
                            i.band,
                            substring(
                                b.wkb FROM (62 + (i.band - 1) * (1 + {width} + b.w * b.h * {width}))::int4 FOR 1 + {width}
                            ) AS head
                        FROM blocks AS b CROSS JOIN generate_series(1, {count}::int4) AS i (band)
                        OFFSET 0
                    ) AS k
                    GROUP BY k.band
                ) AS k
            ) AS once,
            min(s.x1 - s.x0) AS width, min(s.y1 - s.y0) AS height,
            max(b.x + b.w) - min(b.x) AS all_width, max(b.y + b.h) - min(b.y) AS all_height  -- of what ST_Union joins
        FROM blocks AS b CROSS JOIN span AS s
        HAVING NOT EXISTS (SELECT FROM other)
    ),
    size AS MATERIALIZED (
        SELECT
            c.once, c.width, c.height, greatest(c.width, c.height) > 65535 OR (
                c.once IS FALSE AND greatest(c.all_width, c.all_height) > 65535
            ) AS beyond
        FROM cover AS c
    ),
    edge AS MATERIALIZED (  -- whether a last band has to say where it ends; all rasters have the first one's nodata values
        SELECT
            (s.x0 > n.x0 OR s.x1 < n.x1 OR s.y0 > n.y0 OR s.y1 < n.y1) AND (
                SELECT bool_or(
                    get_byte(b.wkb, (61 + (i.band - 1) * (1 + {width} + b.w * b.h * {width}))::int4) & 64 = 0
                )
                FROM (SELECT * FROM blocks LIMIT 1) AS b CROSS JOIN generate_series(1, {count}::int4) AS i (band)
            ) AS needed
        FROM size CROSS JOIN span AS s CROSS JOIN need AS n
        WHERE size.once AND NOT size.beyond
    )
    SELECT CASE WHEN edge.needed THEN 2 ELSE 1 END AS how, ST_RastFromWKB(
        set_byte(
            e.head, CASE get_byte(e.head, 0) WHEN 1 THEN 3 ELSE 4 END, {count}::int4 + CASE WHEN edge.needed THEN 1 ELSE 0 END
        ) || (
            SELECT string_agg(c.bytes, ''::bytea ORDER BY c.place)
            FROM (
                SELECT i.band * 65536::int8 * 65536 AS place, set_byte(h.head, 0, get_byte(h.head, 0) & 223) AS bytes
                FROM generate_series(1, {count}::int4) AS i (band)
                CROSS JOIN LATERAL (
                    SELECT substring(
                        b.wkb FROM (62 + (i.band - 1) * (1 + {width} + b.w * b.h * {width}))::int4 FOR 1 + {width}
                    ) AS head
                    FROM blocks AS b LIMIT 1
                ) AS h
                UNION ALL
                SELECT
                    (i.band * 65536::int8 + row.y - s.y0 + 1) * 65536 + greatest(b.x - s.x0, 0),  -- band, row, column
                    substring(
                        b.wkb
                        FROM (
                            62 + (i.band - 1) * (1 + {width} + b.w * b.h * {width}) + 1 + {width}
                            + ((row.y - b.y) * b.w + greatest(s.x0 - b.x, 0)) * {width}
                        )::int4
                        FOR ((least(b.x + b.w, s.x1) - greatest(b.x, s.x0)) * {width})::int4
                    )
                FROM span AS s
                CROSS JOIN blocks AS b
                CROSS JOIN generate_series(1, {count}::int4) AS i (band)
                CROSS JOIN LATERAL generate_series(greatest(b.y, s.y0), least(b.y + b.h, s.y1) - 1) AS row (y)
                WHERE b.x < s.x1 AND b.x + b.w > s.x0
                OFFSET 0  -- the fence keeps the rasters' bytes out of the sort that the aggregate makes
            ) AS c
        ) || CASE
            WHEN edge.needed THEN decode('0400' || repeat('80', ((s.x1 - s.x0) * (s.y1 - s.y0))::int4), 'hex') ELSE ''
        END
    ) AS rast, NULL::text AS said
    FROM edge
    CROSS JOIN span AS s
    CROSS JOIN LATERAL (
        SELECT ST_AsBinary(ST_MakeEmptyRaster(
            (s.x1 - s.x0)::int4, (s.y1 - s.y0)::int4, p.x + s.x0 * p.scale_x + s.y0 * p.skew_x,
            p.y + s.x0 * p.skew_y + s.y0 * p.scale_y, p.scale_x, p.scale_y, p.skew_x, p.skew_y, p.srid
        )) AS head
        FROM {place} AS p
    ) AS e
    UNION ALL
    SELECT 3, ST_Union(o.rast), NULL
    FROM size
    CROSS JOIN (
        SELECT {pixels} AS rast
        FROM (
            SELECT b.rast
            FROM (
                SELECT b.rast, b.place FROM blocks AS b
                UNION ALL
                SELECT ST_AddBand(ST_MakeEmptyRaster(1, 1, h.x, h.y, h.sx, h.sy, h.kx, h.ky, h.srid), {holes}), NULL
                FROM (
                    SELECT
                        ST_UpperLeftX(b.rast) AS x, ST_UpperLeftY(b.rast) AS y, ST_ScaleX(b.rast) AS sx, ST_ScaleY(b.rast) AS sy,
                        ST_SkewX(b.rast) AS kx, ST_SkewY(b.rast) AS ky, ST_SRID(b.rast) AS srid
                    FROM blocks AS b LIMIT 1
                ) AS h
            ) AS b
            ORDER BY b.place DESC NULLS FIRST
            OFFSET 0
        ) AS r
        OFFSET 0
    ) AS o
    WHERE NOT size.once AND NOT size.beyond
    HAVING count(*) > 0
    UNION ALL
    SELECT 4, NULL, format(
        'at (%s, %s) has SRID %s, scale (%s, %s), skew (%s, %s), %s band%s %s; expected %s',
        ST_UpperLeftX(o.rast), ST_UpperLeftY(o.rast), ST_SRID(o.rast), ST_ScaleX(o.rast), ST_ScaleY(o.rast), ST_SkewX(o.rast),
        ST_SkewY(o.rast), ST_NumBands(o.rast), CASE WHEN ST_NumBands(o.rast) <> 1 THEN 's' END,
        array_to_string(ARRAY(SELECT ST_BandPixelType(o.rast, i) FROM generate_series(1, ST_NumBands(o.rast)) AS i), ', '),
        {kind}::text
    )
    FROM other AS o
    UNION ALL
    SELECT CASE WHEN ST_NumGeometries(this.geom) > 1 THEN 6 ELSE 5 END, NULL, format('%s × %s', size.width, size.height)
    FROM size
    WHERE size.beyond
) AS joined
