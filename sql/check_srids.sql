-- Whether a raster is in this SRID: the test in check_apart.sql.
-- slots: column, value (SRID)
-- rows: an expression
-- index: none
ST_SRID({column}) = {value}
