-- Whether a raster's pixels are of this size and turned so: the test in check_apart.sql.
-- slots: column, value (scale x, y, skew x, y)
-- rows: an expression
-- index: none
ARRAY[ST_ScaleX({column}), ST_ScaleY({column}), ST_SkewX({column}), ST_SkewY({column})] = {value}::float8[]
