"""The driver's errors as ours: where, what, and what to do. Pure: text in, text out."""

from __future__ import annotations

import re

import psycopg

from ..errors import DatabaseError, MissingError, PgtilesError, QueryError
from .faults import Kind, kind

FILES = re.compile(r"offline (raster|band)|VSICURL disabled|from GDAL raster", re.I)
IN_FILES = (
    "the pixels stay in a file that the server opens (out-db): is it still there and whole, and may the account that the "
    "server runs as read it? If it was moved, load it again. Formats are the setting postgis.gdal_enabled_drivers (with "
    "VSICURL for URLs), and postgis.enable_outdb_rasters must be on: ALTER DATABASE … SET …"
)
TOO_LARGE = re.compile(r"exceed the maximum \(65535|invalid memory alloc request size|out of memory", re.I)


# What PostGIS says of geometries that it can't place or widen, and what to do about it.
GEOMETRIES = (
    (r"unknown \(0\) SRID", "a geometry says not where it lies (SRID 0): ST_SetSRID(geom, 4326) says so in the query"),
    (r"Unknown geometry type", "flatten it in the query: (ST_Dump(geom)).geom gives the faces of a surface one by one"),
    (
        r"[Ii]nvalid coordinate|projection domain|tolerance condition",
        "a coordinate is not a number, or lies where its SRID or the tiles' is not defined: mend it, leave its row out, or cut "
        "it, ST_Intersection(geom, <the land at hand>)",
    ),
)


def translate(error: psycopg.Error, where: str) -> PgtilesError:
    """What to raise for an error of the driver. where: which database it is."""
    state, diag = error.sqlstate or "", error.diag
    said = " ".join(filter(None, [diag.message_primary or str(error).strip(), diag.message_detail]))
    if (remote := (diag.context or "").partition("remote SQL command: "))[1]:
        said += f"\nthat is what the server of a foreign table said; it was sent: {remote[2]}"
    if not state and isinstance(error, psycopg.OperationalError):
        hint = "is the server up, and does it listen there?"
        if "SSL" in said or "certificate" in said:
            hint = "check sslmode, sslrootcert and, of a key with a password, sslpassword, which is in no pickle"
        elif "no password supplied" in said:
            hint = (
                "give one in the URL, in PGPASSWORD or in ~/.pgpass. Pickles hold no password: one that was unpickled takes "
                "it from there, or from a PGTILES_URL of the same server and user"
            )
        elif "definition of service" in said or "service file" in said:
            hint = "services are defined in ~/.pg_service.conf, or in the file that PGSERVICEFILE names"
        elif "password" in said or "authentication" in said or "pg_hba" in said:
            hint = "check the user and the password (in the URL, PGPASSWORD or ~/.pgpass)"
        elif "does not exist" in said:
            hint = "check the database's and the user's name"
        return DatabaseError(f"{where}: {said}\n{hint}")
    if state == "42501":
        return QueryError(f"{where}: {said}: have its owner GRANT SELECT (and USAGE on the schema) to this user")
    if state in {"08000", "08001", "08003", "08006", "HV00N"}:  # our own connection, where it is lost, gives no code
        return DatabaseError(
            f"{where} is up, but another server, on which a foreign table of it lies, can't be reached: {said}\n"
            "is that one up? Its address is in ALTER SERVER … OPTIONS (SET host …), the user in ALTER USER MAPPING …"
        )
    if state[:2] in {"53", "57", "58", "28", "3D"} or not state or kind(error) is not Kind.PERMANENT:
        return DatabaseError(f"{where}: {said}")
    hint = diag.message_hint or ""
    if TOO_LARGE.search(said):
        hint = (
            "\na raster holds at most 65535 pixels a side and 1 GB. A line is burned in whole segments: cut very long ones, "
            "ST_Segmentize(geom, 1000), or buffer the line; store imagery in blocks (pgtiles load raster makes them of 128 px)"
        )
    hint = next((f"\n{text}" for pattern, text in GEOMETRIES if re.search(pattern, said)), hint)
    if FILES.search(said):
        return MissingError(f"{where}: {said.partition(': ')[2] or said}\n{IN_FILES}")
    query = QueryError(" ".join(filter(None, [said, hint])))
    query.position = int(diag.statement_position) if diag.statement_position else None
    return query
