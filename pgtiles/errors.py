"""Every error that pgtiles raises, on one page.

Each says what was wrong, the value, what is allowed and what to do. Each can be built from ONE string, because torch
re-raises a worker's error in the main process as ``type(error)(message)``. Each can also be caught as the builtin
that a caller without pgtiles in mind would expect.
"""


class PgtilesError(Exception):
    """Base of all errors raised by pgtiles."""


class ConfigError(PgtilesError, ValueError):
    """An argument is not allowed: the message names it, its value and what is allowed."""


class MissingError(PgtilesError, LookupError):
    """A table, column, file or extension is not there."""


class QueryError(PgtilesError, ValueError):
    """A label or imagery query is wrong: the message points into the user's own text."""

    position: int | None = None  # 1-based character of the statement at which the server stopped


class SridError(QueryError):
    """A query searches a table in another SRID than the table's: it would find nothing, and nothing would say so."""


class DataError(PgtilesError, ValueError):
    """What the database holds or returned does not fit the tile: SRID, lattice, pixel type or value."""


class WKBError(PgtilesError, ValueError):
    """Bytes are not one whole raster in PostGIS raster WKB."""


class DatabaseError(PgtilesError, ConnectionError):
    """The server can't be reached, refused us, or went away."""


class OutageError(DatabaseError):
    """The server stayed away for longer than the database's patience."""


class PoisonError(DatabaseError):
    """Tiles that end the server's process each time they are read."""


class SlowError(QueryError):
    """Tiles that can't be read within the database's timeout."""


class ServerError(PgtilesError, RuntimeError):
    """The local server can't be made, started or stopped."""


class LoadError(PgtilesError, OSError):
    """A file can't be loaded; the database is as it was before."""


class DependencyError(PgtilesError, ImportError):
    """An optional package or program is not installed: the message names it."""


class PgtilesWarning(UserWarning):
    """Something works, but not as well or not as fully as the user may think."""
