-- Room for polygons as they were traced; it goes with the transaction.
-- slots: srid
-- rows: none
CREATE TEMPORARY TABLE pgtiles_traced (
    fid integer NOT NULL,
    class integer NOT NULL,
    probability double precision,
    geom geometry(Polygon, {srid}) NOT NULL
) ON COMMIT DROP
