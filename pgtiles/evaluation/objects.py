"""Objects beside objects: polygons of a truth and of a prediction, matched where they overlap enough. The server overlays."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import sql

from ..errors import ConfigError, DataError, QueryError
from ..inspection.statistics import table
from ..layers import features
from ..layers.describing import Json
from ..postgres.database import Database
from ..template import compose
from ..tiling.regions import Query, relation
from .metrics import Found, matched
from .scores import FORMAT, found_row, found_said, write_json

ALL = "all objects"  # the class of objects that have none
ROUNDED = 1e-9  # by so much an intersection over union may come out too small


@dataclass(frozen=True)
class ObjectScore:
    """How many objects were found, and how many of those predicted are any: see `score_objects`. ``print(…)`` shows a table."""

    classes: Mapping[str, Mapping[float, Found]]
    """For each class, and for each least intersection over union that counts as found."""
    iou: Mapping[str, float]
    """Of each class, the mean intersection over union of the objects found at the least threshold; NaN where none was."""

    def said(self) -> Json:
        """All of it as JSON has it."""
        classes = {
            name: {
                "mean_iou": None if math.isnan(self.iou[name]) else self.iou[name],
                "at": [{"iou": least} | found_said(found) for least, found in one.items()],
            }
            for name, one in self.classes.items()
        }
        return {"pgtiles object score": FORMAT, "classes": classes}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a JSON file; one that is there is replaced, whole or not at all."""
        write_json(self.said(), path)

    def __str__(self) -> str:
        rows = [
            [name, f"{least:g}", *found_row(found)]
            for name, one in self.classes.items()
            for least, found in one.items()
        ]  # fmt: skip
        return "\n".join(table(["objects", "at IoU", "F1", "precision", "recall", "truth", "predicted"], rows))


def score_objects(db: Database, truth: Query, prediction: Query, *, iou: float | Sequence[float] = 0.5) -> ObjectScore:
    """How many objects of the truth were found, and how many of the prediction are any: precision and recall at an IoU.

    truth, prediction: a query that gives ``geom``, areas, ``id``, which tells them apart, and, where there are classes,
    ``value``; or a table, of which the geometries and the primary key are taken. They may differ in SRID.
    iou: from which intersection over union on two objects of one class are the same; one or more.

    Objects are matched one to one, those that overlap best first.
    """
    given = [iou] if isinstance(iou, int | float) else list(iou)
    if not given or not all(isinstance(one, int | float) and 0 < one <= 1 for one in given):
        raise ConfigError(f"iou={iou!r}: expected intersections over union above 0, up to 1, such as 0.5 or (0.5, 0.75)")
    least = sorted({float(one) for one in given})
    (true, true_class), (found, found_class) = _asked(db, truth, "truth="), _asked(db, prediction, "prediction=")
    srids = db.ask(sql.SQL("SELECT DISTINCT ST_SRID(u.geom::geometry) FROM {} WHERE u.geom IS NOT NULL").format(true))
    if not srids:
        raise DataError("truth=: there is no object, so nothing can be found")
    if len(srids) > 1:
        said = ", ".join(str(srid) for (srid,) in sorted(srids))
        raise DataError(
            f"truth=: its objects lie in the SRIDs {said}: ST_Transform(geom, {srids[0][0]}) AS geom brings them into one"
        )
    slots = {"truth": true, "truth_class": true_class, "prediction": found, "prediction_class": found_class}
    rows = db.ask(compose("objects", **slots, srid=srids[0][0], least=least[0] - ROUNDED))
    counts: tuple[dict[str, int], dict[str, int]] = ({}, {})
    pairs: dict[str, list[tuple[str, str, float]]] = {}
    for side, name, a, b, number in rows:
        if side == 2:
            pairs.setdefault(name, []).append((a, b, number))
        else:
            _check(("truth=", "prediction=")[side], int(a), int(b), int(number))
            counts[side][name] = int(a)
    classes, means = dict[str, dict[float, Found]](), dict[str, float]()
    for name in sorted(counts[0].keys() | counts[1].keys()):
        shared = matched(pairs.get(name, ()))
        there, predicted = counts[0].get(name, 0), counts[1].get(name, 0)
        hits = {one: sum(1 for value in shared if value >= one - ROUNDED) for one in least}
        classes[name] = {one: Found(there, predicted, hit, hit) for one, hit in hits.items()}
        means[name] = float(np.mean(shared)) if shared else math.nan
    return ObjectScore(classes, means)


def _asked(db: Database, source: Query, what: str) -> tuple[sql.Composed, sql.Composable]:
    """The objects as a relation u, and their class as text."""
    if features.is_table(source):
        known = db.table(str(source))
        if len(known.primary_key) != 1:
            raise DataError(
                f"{what} {known} has no primary key of one column, which tells its objects apart: give a query with id"
            )
        key, geometry = sql.Identifier(known.primary_key[0]), sql.Identifier(known.column("geometry"))
        text = sql.SQL("SELECT t.{} AS id, t.{} AS geom FROM {} AS t").format(key, geometry, known.identifier).as_string(None)
    else:
        text = source  # type: ignore[assignment]  # the user's own
    rows, types = relation(db, text, what)
    if "id" not in types:
        raise QueryError(f"{what} the query gives no column id, which tells its objects apart, such as osm_id AS id")
    name: Any = sql.SQL("coalesce(u.value::text, 'NULL')") if "value" in types else sql.Literal(ALL)
    return rows, sql.SQL("{}::text").format(name)


def _check(what: str, count: int, different: int, flat: int) -> None:
    if different < count:
        raise DataError(f"{what} {count} objects have {different} different ids, and none may be NULL: id tells them apart")
    if flat:
        raise DataError(f"{what} {flat} of {count} objects are no areas: WHERE ST_Dimension(geom) = 2 leaves them out")
