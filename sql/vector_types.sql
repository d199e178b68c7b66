-- Give columns the types that their values have turned out to be of. Rewrites the table once.
-- slots: table, type (of geometry, as PolygonZ), srid, geometry (an expression on geom), others (each ", ALTER COLUMN …")
-- rows: none
ALTER TABLE {table}
    ALTER COLUMN geom TYPE geometry({type}, {srid}) USING ST_SetSRID({geometry}, {srid}){others}
