-- A time series on the warped path: its steps, each to be joined and warped by itself, in the order in which they are pasted.
-- slots: none; stands in warped.sql, where around has a row for each raster of each step (series.sql)
-- rows: n, geom, ref, envelope of the tile; step, from 1; seconds
(SELECT DISTINCT ON (a.n, a.step) a.n, a.geom, a.ref, a.envelope, a.step, a.seconds FROM around AS a ORDER BY a.n, a.step)
