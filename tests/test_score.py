"""Predictions beside the truth: torchmetrics, rasterio, shapely, NumPy and a case counted by hand say what is right."""

import json
import math
import pickle
import re
import shlex
import tracemalloc
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import psycopg
import pytest
import shapely
import torch
from conftest import HEIGHT, RES, WIDTH, X0, Y0, ask, scene, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize
from rasterio.transform import from_origin
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)
from typer.testing import CliRunner

from pgtiles import (
    Attributes,
    Boxes,
    Database,
    Grid,
    Imagery,
    Labels,
    Tiles,
    keep_errors,
    load,
    plot,
    score,
    score_objects,
)
from pgtiles.errors import ConfigError, DataError, LoadError, PgtilesWarning, QueryError
from pgtiles.evaluation.boundaries import boundary, margin_of, near
from pgtiles.evaluation.metrics import Confusion, Found, Tally, matched
from pgtiles.shell.cli import typer_app

ROOT = Path(__file__).parents[1]
TRANSFORM = from_origin(X0, Y0, RES, RES)
AREAS = "SELECT way AS geom, class AS value FROM areas WHERE way && tile.geom"
EDGES = X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0


def burned(shapes, shape=(HEIGHT, WIDTH)):
    """(geometry, value) as rasterio burns them: the greater value on top."""
    return rasterize(sorted(shapes, key=lambda pair: pair[1]), out_shape=shape, transform=TRANSFORM, dtype="uint8")


def predicted(truth, seed=0):
    """The truth moved by some pixels, with blunders, and 255 where nothing was predicted."""
    rng = np.random.default_rng(seed)
    found = np.roll(truth, (2, -3), (0, 1))
    blunders = rng.random(truth.shape) < 0.05
    found = np.where(blunders, rng.integers(0, 5, truth.shape, dtype="uint8"), found)
    found[:, 900:] = 255
    return found


def counted(truth, found, values):
    """The confusion matrix, cell by cell."""
    return [[int(((truth == a) & (found == b)).sum()) for b in values] for a in values]


@pytest.fixture(scope="module")
def truth(world):
    return burned([(g, world.features.value(i)) for i, g in enumerate(world.features.areas)])


@pytest.fixture(scope="module")
def prediction(world, truth):
    """What was predicted, as an array; and as the table `predicted`."""
    found = predicted(truth)
    load.raster(world.db, [write_tiff(world.folder / "predicted.tif", found[None], nodata=255)], "predicted")
    yield found
    with world.db.connection() as conn:
        conn.execute("DROP TABLE predicted")


@pytest.fixture(scope="module")
def tiles(world):
    """The whole scene, and beyond its edges."""
    return Tiles.sliding(world.grid, within=EDGES, edge="beyond")


@pytest.fixture(scope="module")
def found(world, prediction, tiles):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)  # of pixels without a prediction: told below
        return score(world.db, tiles, Labels(AREAS), Imagery("predicted"))


LAYER = Imagery("predicted", resampling="nearest")


class TestPixels:
    def test_a_case_counted_by_hand(self):
        """Six pixels of class 0, of which four are found, three of class 1, of which two are; one of class 2, which is not."""
        true = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 2]])
        guess = np.array([[0, 0, 0, 0, 1], [2, 1, 1, 0, 0]])
        tally = Tally()
        tally.add(true[:1], guess[:1])
        tally.add(true[1:], guess[1:])
        one = tally.confusion()
        assert one.values == (0, 1, 2)
        assert one.counts.tolist() == [[4, 1, 1], [1, 2, 0], [1, 0, 0]]
        assert one.iou.tolist() == [4 / 8, 2 / 4, 0]
        assert one.precision.tolist() == [4 / 6, 2 / 3, 0]
        assert one.recall.tolist() == [4 / 6, 2 / 3, 0]
        assert one.f1.tolist() == [8 / 12, 4 / 6, 0]
        assert one.accuracy == 0.6
        assert one.mean("iou") == pytest.approx(1 / 3)
        assert one.kappa == pytest.approx((0.6 - 0.46) / (1 - 0.46))  # chance: 0.6 · 0.6 + 0.3 · 0.3 + 0.1 · 0.1

    def test_a_class_that_is_nowhere_has_no_share_and_is_in_no_mean(self):
        tally = Tally()
        tally.add(np.array([0, 0, 1]), np.array([0, 0, 0]))
        one = tally.confusion([0, 1, 7])
        assert one.values == (0, 1, 7)
        assert one.precision.tolist()[:2] == [2 / 3, 0]
        assert all(math.isnan(getattr(one, what)[2]) for what in ("iou", "f1", "precision", "recall"))
        assert one.mean("precision") == 1 / 3
        assert math.isnan(Tally().confusion([3]).mean("iou"))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_all_metrics_are_torchmetrics(self, data):
        classes = data.draw(st.integers(2, 6))
        kind = arrays(np.int64, data.draw(st.integers(2, 60)), elements=st.integers(0, classes - 1))
        true, guess = data.draw(kind), data.draw(kind.filter(lambda a: True))
        guess = np.resize(guess, true.shape)
        tally = Tally()
        tally.add(true, guess)
        one = tally.confusion(range(classes))
        pair = torch.from_numpy(guess), torch.from_numpy(true)
        assert (one.counts == MulticlassConfusionMatrix(classes)(*pair).numpy()).all()
        there = one.truth + one.predicted > 0
        for what, metric in (
            ("iou", MulticlassJaccardIndex), ("f1", MulticlassF1Score), ("precision", MulticlassPrecision),
            ("recall", MulticlassRecall),
        ):  # fmt: skip
            each = metric(classes, average=None)(*pair).numpy()
            assert getattr(one, what)[there] == pytest.approx(each[there], abs=1e-6), what
            assert one.mean(what) == pytest.approx(float(metric(classes, average="macro")(*pair)), abs=1e-6), what
        assert one.accuracy == pytest.approx(float(MulticlassAccuracy(classes, average="micro")(*pair)), abs=1e-6)
        kappa = float(MulticlassCohenKappa(classes)(*pair))
        assert (math.isnan(one.kappa) and math.isnan(kappa)) or one.kappa == pytest.approx(kappa, abs=1e-5)

    @pytest.mark.parametrize("values", [(0, 1), (-3, 2), (0, 254, 255), (0, 70_000), (-(2**62), 2**62)])
    def test_classes_may_be_any_whole_numbers(self, values):
        rng = np.random.default_rng(0)
        true, guess = rng.choice(values, (2, 500))
        tally = Tally()
        tally.add(true, guess)
        one = tally.confusion()
        assert one.values == values
        assert one.counts.tolist() == counted(true, guess, values)

    def test_a_map_of_ten_billion_pixels_does_not_overflow(self):
        one = Confusion((0, 1), np.array([[6 * 10**9, 10**9], [10**9, 2 * 10**9]]))
        chance = 0.7 * 0.7 + 0.3 * 0.3
        assert one.kappa == pytest.approx((0.8 - chance) / (1 - chance))


class TestScore:
    def test_the_map_is_scored_as_if_it_were_in_memory(self, found, truth, prediction):
        known = prediction != 255
        values = (0, 1, 2, 3, 4)
        assert found.confusion.values == values
        assert found.confusion.counts.tolist() == counted(truth[known], prediction[known], values)
        pair = torch.from_numpy(prediction[known].astype("int64")), torch.from_numpy(truth[known].astype("int64"))
        assert found.confusion.iou == pytest.approx(MulticlassJaccardIndex(5, average=None)(*pair).numpy(), abs=1e-6)
        assert found.confusion.kappa == pytest.approx(float(MulticlassCohenKappa(5)(*pair)), abs=1e-5)

    def test_a_tile_knows_its_own_error(self, found, truth, prediction, tiles):
        wide = np.zeros((2, 64 * 16, 64 * 18), np.int64)
        wide[1] = 255
        wide[0, :HEIGHT, :WIDTH], wide[1, :HEIGHT, :WIDTH] = truth, prediction
        assert found.tiles.ids.tolist() == tiles.ids.tolist()
        columns = found.tiles.columns
        left, top = (tiles.bounds[:, 0] - X0) / RES, (Y0 - tiles.bounds[:, 3]) / RES
        for n, (x, y) in enumerate(zip(np.rint(left).astype(int), np.rint(top).astype(int), strict=True)):
            mine, its = wide[:, y : y + 64, x : x + 64]
            known = its != 255
            assert columns["pixels"][n] == known.sum()
            assert columns["error"][n] == ((mine != its) & known).sum() / max(known.sum(), 1)
            met = np.union1d(mine[known], its[known])
            ious = [((mine == v) & (its == v)).sum() / (((mine == v) | (its == v)) & known).sum() for v in met]
            assert columns["iou"][n] == pytest.approx(np.mean(ious) if len(met) else 1)
        assert found.worst(3).columns["error"].tolist() == sorted(columns["error"].tolist())[:-4:-1]

    def test_pixels_without_a_prediction_are_counted_and_bare_tiles_warned_of(self, world, prediction, tiles):
        with pytest.warns(PgtilesWarning, match="15 of 240 tiles have a truth and no prediction at all"):
            one = score(world.db, tiles, Labels(AREAS), LAYER)
        height, width = 64 * 15, 64 * 16
        assert len(tiles) == 15 * 16
        assert one.missing == height * width - int((prediction != 255).sum())
        assert one.untold == 0
        assert one.confusion.pixels + one.missing == height * width

    def test_ignored_pixels_are_left_out(self, world, truth, prediction, quiet):
        """Beyond a coverage the truth says nothing."""
        ground = shapely.box(X0 + 100, Y0 - 1500, X0 + 1700, Y0 - 200)
        layer = Labels(AREAS, ignore_index=99, coverage=ground)
        tiles = Tiles.sliding(world.grid, within=(X0, Y0 - 640 * RES, X0 + 704 * RES, Y0))
        told = burned([(ground, 1)])[:640, :704] == 1
        mine, its = truth[:640, :704], prediction[:640, :704]
        one = score(world.db, tiles, layer, LAYER)
        values = (0, 1, 2, 3, 4)
        assert one.confusion.counts.tolist() == counted(mine[told], its[told], values)
        assert one.untold == (~told).sum()

    def test_connections_and_batches_change_nothing(self, world, found, tiles, quiet):
        steps = []
        one = score(world.db, tiles, Labels(AREAS), LAYER, connections=1, progress=lambda *step: steps.append(step))
        assert (one.confusion.counts == found.confusion.counts).all()
        assert one.tiles.columns["error"].tolist() == found.tiles.columns["error"].tolist()
        assert steps[-1] == (len(tiles), len(tiles))
        assert len(steps) == math.ceil(len(tiles) / 16)

    def test_it_prints_saves_and_pickles(self, found, tmp_path):
        text = str(found)
        assert "mean IoU" not in text
        assert re.search(r"^class +IoU +F1 +precision +recall +truth +predicted$", text, re.M)
        assert f"accuracy {found.confusion.accuracy:.2%}, kappa {found.confusion.kappa:.4f}" in text
        assert f"without a prediction, and left out: {found.missing} pixels" in text
        found.save(tmp_path / "score.json")
        said = json.loads((tmp_path / "score.json").read_text())
        assert said["confusion"] == found.confusion.counts.tolist()
        assert said["mean_iou"] == found.confusion.mean("iou")
        assert said["source"]["layers"]["prediction"] == {"layer": "Imagery", "source": "predicted"}
        again = pickle.loads(pickle.dumps(found))
        assert (again.confusion.counts == found.confusion.counts).all()
        with pytest.raises(ConfigError, match="no longer knows how to read"):
            again.plot_worst()

    def test_the_worst_tiles_show_in_grey_what_is_left_out(self, world, prediction, monkeypatch, quiet):
        """Pixels without a prediction, and those that the truth ignores: neither is background."""
        drawn = {}
        monkeypatch.setattr(plot, "batch", lambda sample, *_, **more: drawn.update(sample) or drawn.update(more))
        ground = shapely.box(X0 + 100, Y0 - 1500, X0 + 2200, Y0 - 200)
        tile = Tiles.sliding(
            world.grid, within=(X0 + 832 * RES, Y0 - 128 * RES, X0 + 896 * RES, Y0 - 64 * RES)
        ) + Tiles.sliding(world.grid, within=(X0 + 896 * RES, Y0 - 128 * RES, X0 + 960 * RES, Y0 - 64 * RES), first_id=9)
        score(world.db, tile, Labels(AREAS), LAYER).plot_worst(count=2)
        assert (drawn["prediction"] == drawn["ignore_index"]).sum() == 64 * 60
        assert not (drawn["truth"] == drawn["ignore_index"]).any()
        score(world.db, tile, Labels(AREAS, ignore_index=99, coverage=ground), LAYER).plot_worst(count=2)
        told = burned([(ground, 1)])[64:128, 832:960] == 1
        assert drawn["ignore_index"] == 99
        assert (drawn["truth"] == 99).sum() == (~told).sum() > 0
        assert (drawn["prediction"] == 99).sum() == 64 * 60

    def test_pictures(self, world, tmp_path, quiet, prediction):
        tiles = Tiles.sliding(world.grid, within=(X0, Y0 - 320, X0 + 640, Y0))
        one = score(world.db, tiles, Labels(AREAS), LAYER, image=Imagery("scene"), classes={1: "a $x_{ field$", 2: "lake"})
        assert one.names[1] == "a $x_{ field$"
        figure = one.plot(tmp_path / "confusion.png", title="all")
        shown = [text.get_text() for text in figure.axes[0].texts]
        assert shown[0].endswith(f"{one.confusion.counts[0, 0]:,}")
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels[1] == r"1 a \$x_{ field\$"  # two dollars would be a formula
        sheet = one.plot_worst(tmp_path / "worst.png", count=3)
        assert [axis.get_title() for axis in sheet.axes[:3]] == ["image", "truth", "prediction"]
        assert [axis.get_ylabel() for axis in sheet.axes[::3]] == [f"tile {n}" for n in one.worst(3).ids]
        assert min((tmp_path / f"{name}.png").stat().st_size for name in ("confusion", "worst")) > 10_000

    def test_what_gives_no_classes_is_refused(self, world, prediction, tiles):
        def refused(match, *layers, **more):
            with pytest.raises(ConfigError, match=match):
                score(world.db, tiles, *layers, **more)

        labels = Labels(AREAS)
        refused("layer 'prediction' has 3 bands: expected one, of classes", labels, Imagery("scene"))
        refused("layer 'truth': Boxes gives no classes", Boxes("areas"), LAYER)
        refused("resolution= goes with layers to learn from", labels, Imagery("predicted", resolution=5))
        refused("tolerance=-1: expected ground metres", labels, LAYER, tolerance=-1)
        refused("connections=0", labels, LAYER, connections=0)
        refused("by=Labels: expected a query that gives geom and columns", labels, LAYER, by=labels)
        refused("classes: 'field' is no whole number", labels, LAYER, classes={"field": 1})
        refused("tolerance=9000: .* pixels; expected 511 or fewer", labels, LAYER, tolerance=9000)
        shifted = Grid(srid=3857, resolution=RES, size=64, origin=(X0 + 1, Y0))
        off = Tiles.sliding(shifted, within=(X0 + 200, Y0 - 600, X0 + 800, Y0 - 200))
        with (
            pytest.warns(PgtilesWarning, match="Grid.like"),
            pytest.raises(ConfigError, match="resampling='bilinear' blends classes"),
        ):
            score(world.db, off, labels, Imagery("predicted"))
        away = Tiles.sliding(world.grid, within=(X0 + 905 * RES, Y0 - 320, X0 + 995 * RES, Y0))
        with pytest.raises(DataError, match=r"of no pixel of these \d+ tiles both truth and prediction tell a class"):
            score(world.db, away, labels, LAYER)

    def test_probabilities_are_no_classes(self, schema_db, tmp_path):
        pixels = np.random.default_rng(0).random((1, 128, 128), "float32")
        load.raster(schema_db, [write_tiff(tmp_path / "p.tif", pixels)], "p")
        tiles = Tiles.sliding(Grid.like(schema_db, "p", size=64), within=schema_db.extent("p", 3857))
        with pytest.raises(DataError, match=rf"layer 'prediction', tile 0: pixel value {pixels[0, 0, 0]:g}: expected classes"):
            score(schema_db, tiles, Labels(AREAS), Imagery("p"))

    def test_whole_numbers_that_look_like_probabilities_are_warned_of(self, schema_db, tmp_path):
        for name, high in (("t", 2), ("p", 255)):
            pixels = np.random.default_rng(0).integers(0, high, (1, 64, 64), "uint8")
            load.raster(schema_db, [write_tiff(tmp_path / f"{name}.tif", pixels)], name)
        tiles = Tiles.sliding(Grid.like(schema_db, "p", size=64), within=schema_db.extent("p", 3857))
        with pytest.warns(PgtilesWarning, match="has 253 values, from 2 to 254, that are no class of the truth"):
            score(schema_db, tiles, Labels("t"), Imagery("p"))

    def test_classes_of_16_bits_are_scored(self, schema_db, tmp_path):
        """Which come as floats, as torch can't compute with uint16."""
        true = np.random.default_rng(0).integers(0, 3, (1, 64, 64), "uint16") * 20_000
        guess = np.roll(true, 1)
        for name, array in (("t", true), ("p", guess)):
            load.raster(schema_db, [write_tiff(tmp_path / f"{name}.tif", array)], name)
        tiles = Tiles.sliding(Grid.like(schema_db, "p", size=64), within=schema_db.extent("p", 3857))
        one = score(schema_db, tiles, Labels("t"), Imagery("p"))
        assert one.confusion.values == (0, 20_000, 40_000)
        assert one.confusion.counts.tolist() == counted(true, guess, (0, 20_000, 40_000))

    def test_tiles_on_several_grids_are_counted_together(self, world, truth, prediction, quiet):
        """The same land in two SRIDs: pixels are those of each grid."""
        north = Tiles.sliding(world.grid, within=(X0, Y0 - 320, X0 + 640, Y0))
        zone = Grid(srid=32632, resolution=2.5, size=64)
        other = Tiles.random(zone, within=world.db.extent("predicted", 32632), count=3, seed=1, first_id=1000)
        layers = (Labels("SELECT way AS geom, class AS value FROM areas WHERE way && tile.geom", srid=3857), LAYER)
        alone = [score(world.db, tiles, *layers).confusion.counts for tiles in (north, other)]
        both = score(world.db, north + other, *layers)
        assert (both.confusion.counts == sum(alone)).all()
        assert both.tiles.columns["error"].shape == (len(north) + 3,)


class TestAttributes:
    def test_a_group_holds_no_more_than_its_own_pixels(self, world, prediction, quiet):
        """Of thousands of groups on a tile, each as a mask of all of it, memory would be full."""
        cells = """
            SELECT ST_MakeEnvelope(x, y, x + 20, y + 20, 3857) AS geom, x, y
            FROM generate_series(floor(ST_XMin(tile.geom))::int, floor(ST_XMax(tile.geom))::int - 1, 20) AS x,
                generate_series(floor(ST_YMin(tile.geom))::int, floor(ST_YMax(tile.geom))::int - 1, 20) AS y
        """
        one = Tiles.sliding(Grid.like(world.db, "predicted", size=256), within=(X0, Y0 - 640, X0 + 640, Y0))
        assert len(one) == 1
        tracemalloc.start()
        groups = score(world.db, one, Labels(AREAS), LAYER, by=cells).by
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(groups) == 32 * 32
        assert {group.pixels for group in groups.values()} == {64}
        assert peak < 256 * 256 * 1024 / 4

    def test_scores_by_attributes_are_those_of_masks_that_rasterio_burns(self, world, truth, prediction, tiles, quiet):
        """Road class and district, in one query: groups overlap, and a road counts where it leaves its district."""
        with world.db.connection() as conn:
            conn.execute("CREATE TABLE districts (name text, geom geometry(Polygon, 3857))")
            boxes = {"Alt": (0, 400), "Neu": (400, 1000), None: (850, 900)}
            for name, (west, east) in boxes.items():
                place = [X0 + west * RES, Y0 - HEIGHT * RES, X0 + east * RES, Y0]
                conn.execute("INSERT INTO districts VALUES (%s, ST_MakeEnvelope(%s, %s, %s, %s, 3857))", [name, *place])
        query = """
            SELECT ST_Intersection(ST_Buffer(r.way, 9), d.geom) AS geom, r.class AS road, d.name AS district
            FROM roads AS r JOIN districts AS d ON ST_Intersects(ST_Buffer(r.way, 9), d.geom)
            WHERE ST_DWithin(r.way, tile.geom, 9) AND d.geom && tile.geom
        """
        one = score(world.db, tiles, Labels(AREAS), LAYER, by=query)
        assert one.by_columns == ("road", "district")
        groups = defaultdict(list)
        for wkb, *key in ask(
            world.db,
            query.replace("tile.geom", f"ST_MakeEnvelope({','.join(map(str, EDGES))}, 3857)").replace(
                "ST_Intersection(ST_Buffer(r.way, 9), d.geom)", "ST_AsBinary(ST_Intersection(ST_Buffer(r.way, 9), d.geom))"
            ),
        ):
            groups[tuple(key)].append(shapely.from_wkb(bytes(wkb)))
        with world.db.connection() as conn:
            conn.execute("DROP TABLE districts")
        known, values, wanted = prediction != 255, (0, 1, 2, 3, 4), {}
        for key, shapes in groups.items():
            where = (burned([(g, 1) for g in shapes]) == 1) & known
            if where.any():
                wanted[key] = counted(truth[where], prediction[where], values)
        assert len(wanted) == 12
        assert {key: own.counts.tolist() for key, own in one.by.items()} == wanted
        assert list(one.by)[:2] == [(1, None), (1, "Alt")]  # NULL first
        lines = str(one).splitlines()
        start = next(n for n, line in enumerate(lines) if line.startswith("road, district"))
        assert lines[start + 1].startswith("1, NULL ")
        assert [said["attributes"]["district"] for said in one.said()["by"]][:3] == [None, "Alt", "Neu"]

    def test_another_srid_a_buffer_and_lines(self, world, truth, prediction, quiet):
        """Roads stored in degrees, widened by metres on the ground, give what a query in the tiles' SRID gives."""
        tiles = Tiles.sliding(world.grid, within=(X0, Y0 - 640, X0 + 640, Y0))
        own = Attributes("SELECT way AS geom, name FROM roads WHERE way && tile.geom", buffer=4)
        far = Attributes("SELECT way AS geom, name FROM roads_4326 WHERE way && tile.geom", srid=4326, buffer=4)
        bare = Attributes("SELECT way AS geom, name FROM roads WHERE way && tile.geom")
        one, two, three = (score(world.db, tiles, Labels(AREAS), LAYER, by=by) for by in (own, far, bare))
        assert {k: c.pixels for k, c in one.by.items()} == pytest.approx(
            {k: c.pixels for k, c in two.by.items()}, rel=0.02, abs=2
        )
        shapes = {f"road {i}": g for i, g in enumerate(world.features.lines)}
        named = {row[0]: row[1] for row in ask(world.db, "SELECT name, ST_AsBinary(way) FROM roads")}
        assert len(shapes) == len(named)
        for (name,), confusion in three.by.items():
            where = burned([(shapely.from_wkb(bytes(named[name])), 1)])[:256, :256] == 1
            assert confusion.pixels == where.sum()

    def test_a_group_of_lines_and_areas_is_one(self, world, truth, prediction, quiet):
        """Which are burned apart, and overlap."""
        tiles = Tiles.sliding(world.grid, within=(X0, Y0 - 1280, X0 + 1280, Y0))
        of = "SELECT way AS geom, 'all' AS name FROM {} WHERE way && tile.geom"
        one = score(world.db, tiles, Labels(AREAS), LAYER, by=f"{of.format('areas')} UNION ALL {of.format('roads')}")
        shapes = [*world.features.areas, *world.features.lines]
        where = burned([(g, 1) for g in shapes])[:512, :512] == 1
        assert one.by["all",].counts.tolist() == counted(
            truth[:512, :512][where], prediction[:512, :512][where], (0, 1, 2, 3, 4)
        )

    def test_what_a_query_lacks_is_said(self, world, tiles, prediction):
        def refused(match, by, kind=QueryError):
            with pytest.raises(kind, match=match):
                score(world.db, tiles, Labels(AREAS), LAYER, by=by)

        refused("layer 'by': the query gives geom alone", "SELECT way AS geom FROM areas WHERE way && tile.geom")
        refused("layer 'by': the query gives the columns class", "SELECT class FROM areas")
        refused("layer 'by': areas: a table says not by which of its columns", "areas", kind=ConfigError)
        refused("more than one statement", "SELECT way AS geom, class FROM areas; DROP TABLE areas")


class TestBoundaries:
    @settings(max_examples=80, deadline=None)
    @given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.floats(0.1, 6), st.floats(0.1, 6))
    def test_near_is_the_distance_of_centres(self, there, down, across):
        y, x = np.nonzero(there)
        rows, columns = np.mgrid[: there.shape[0], : there.shape[1]]
        squares = ((rows[..., None] - y) / down) ** 2 + ((columns[..., None] - x) / across) ** 2
        assert (near(there, (down, across)) == (squares <= 1 + 1e-9).any(axis=-1)).all()

    def test_a_boundary_counted_by_hand(self):
        inside = np.zeros((5, 6), bool)
        inside[1:4, 1:5] = True
        known = np.ones_like(inside)
        known[:, 0] = False
        wanted = inside.copy()
        wanted[2, 1:4] = False  # towards what is not known there is none
        assert (boundary(inside, known) == wanted).all()

    def test_tiles_give_what_the_whole_map_gives(self, world, truth, prediction, quiet):
        """Distances between all pairs of boundary pixels, in metres on the ground of each tile's own latitude."""
        tiles = Tiles.sliding(world.grid, within=(X0 + 160, Y0 - 960, X0 + 800, Y0 - 320))
        one = score(world.db, tiles, Labels(AREAS), LAYER, tolerance=4.0)
        assert one.tolerance == 4.0
        known = prediction != 255
        middle = (tiles.bounds[:, 1].min() + tiles.bounds[:, 3].max()) / 2
        metre = 1 / math.cosh(middle / 6378137)  # of the sphere; of the ellipsoid it differs by less than 1 %
        for value, got in one.boundaries.items():
            sides = []
            for array in (truth, prediction):
                inside = array == value
                edge = np.zeros_like(inside)
                for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
                    there = np.roll(known & ~inside, step, axis)
                    edge |= inside & there
                sides.append(edge)
            region = np.zeros_like(known)
            region[128:384, 64:320] = True
            reached = []
            for mine, others in (sides, sides[::-1]):
                y, x = np.nonzero(mine & region)
                v, u = np.nonzero(others)
                near_by = (v > 110) & (v < 400) & (u > 45) & (u < 340)
                v, u = v[near_by], u[near_by]
                apart = np.sqrt((y[:, None] - v) ** 2 + (x[:, None] - u) ** 2).min(axis=1) if len(v) else np.full(len(y), 99.0)
                reached.append((len(y), int((apart * RES * metre <= 4.0).sum())))
            (true, recalled), (found, right) = reached
            assert (got.truth, got.predicted, got.recalled, got.right) == (true, found, recalled, right)
        assert len(one.boundaries) == 5
        assert "boundary, ± 4 m" in str(one)

    def test_the_margin_reaches_as_far_as_the_tolerance(self):
        assert margin_of((2.0, 0.5)) == (3, 1)
        assert margin_of((1.9999999999, 7.2)) == (3, 8)


class TestObjects:
    @pytest.fixture
    def houses(self, schema_db):
        """Houses and what was found of them, in another SRID: 2 found, one of them twice; one missed; one that is none."""
        corners = [(X0 + 50 * i, Y0 - 50) for i in range(4)]
        true = [shapely.box(x, y, x + 20, y + 10) for x, y in corners]
        guess = [
            shapely.box(*true[0].bounds),
            shapely.affinity.translate(true[0], 5, 0),  # 0.6, and taken
            shapely.affinity.translate(true[1], 5, 0),  # 15 / 25 = 0.6
            shapely.affinity.translate(true[2], 10, 0),  # 1 / 3
            shapely.box(X0 + 500, Y0 - 50, X0 + 520, Y0 - 40),
        ]
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE houses (osm_id int PRIMARY KEY, kind text, way geometry(Polygon, 3857))")
            conn.execute("CREATE TABLE guessed (id int PRIMARY KEY, class text, geom geometry(Polygon, 4326))")
            for i, shape in enumerate(true):
                conn.execute("INSERT INTO houses VALUES (%s, %s, ST_GeomFromWKB(%s, 3857))", [i, "ab"[i % 2], shape.wkb])
            for i, shape in enumerate(guess):
                row = [i, "aabaa"[i], shape.wkb]
                conn.execute("INSERT INTO guessed VALUES (%s, %s, ST_Transform(ST_GeomFromWKB(%s, 3857), 4326))", row)
            conn.execute("CREATE INDEX ON houses USING gist (way)")
        return schema_db

    def test_a_case_counted_by_hand(self, houses):
        one = score_objects(houses, "houses", "guessed", iou=(0.75, 0.5, 0.3))
        assert list(one.classes) == ["all objects"]
        assert one.classes["all objects"] == {0.3: Found(4, 5, 3, 3), 0.5: Found(4, 5, 2, 2), 0.75: Found(4, 5, 1, 1)}
        half = one.classes["all objects"][0.5]
        assert (half.precision, half.recall) == (0.4, 0.5)
        assert half.f1 == pytest.approx(2 * 0.4 * 0.5 / 0.9)
        assert one.iou["all objects"] == pytest.approx((1 + 0.6 + 1 / 3) / 3, abs=1e-4)
        assert re.search(r"^all objects +0.5 +44.44% +40.00% +50.00% +4 +5$", str(one), re.M)

    def test_classes_are_matched_each_for_itself(self, houses, tmp_path):
        true = "SELECT osm_id AS id, kind AS value, way AS geom FROM houses"
        one = score_objects(houses, true, "SELECT id, class AS value, geom FROM guessed")
        assert one.classes == {"a": {0.5: Found(2, 4, 1, 1)}, "b": {0.5: Found(2, 1, 1, 1)}}
        one.save(tmp_path / "objects.json")
        said = json.loads((tmp_path / "objects.json").read_text())
        assert said["classes"]["b"]["at"][0]["precision"] == 1
        with houses.connection() as conn:
            conn.execute("UPDATE guessed SET class = 'c'")
        none = score_objects(houses, true, "SELECT id, class AS value, geom FROM guessed")
        assert none.classes["c"][0.5] == Found(0, 5, 0, 0)
        assert none.classes["a"][0.5] == Found(2, 0, 0, 0)
        assert (none.classes["c"][0.5].recall, none.classes["a"][0.5].precision) == (0, 0)

    def test_many_objects_equal_shapelys(self, schema_db):
        """Squares at random, some crossing themselves; each pair's IoU by shapely, the best pair first."""
        rng = np.random.default_rng(4)
        corners = rng.uniform(0, 300, (2, 150, 2)) + np.array([X0, Y0])
        true, guess = ([shapely.box(*c, *(c + rng.uniform(15, 40, 2))) for c in side] for side in corners)
        bow = shapely.Polygon([(X0, Y0), (X0 + 30, Y0 + 30), (X0 + 30, Y0), (X0, Y0 + 30)])
        guess.append(bow)
        with schema_db.connection() as conn:
            for name, shapes in (("t", true), ("p", guess)):
                conn.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, geom geometry(Polygon, 3857))")
                conn.cursor().executemany(
                    f"INSERT INTO {name} VALUES (%s, ST_GeomFromWKB(%s, 3857))", [(i, g.wkb) for i, g in enumerate(shapes)]
                )
        pairs = []
        for i, a in enumerate(true):
            for j, b in enumerate(map(shapely.make_valid, guess)):
                shared = a.intersection(b).area
                pairs.append((shared / (a.area + b.area - shared), i, j))
        taken, hits = set(), []
        for iou, i, j in sorted(pairs, key=lambda p: -p[0]):
            if iou > 0 and not {("t", i), ("p", j)} & taken:
                taken |= {("t", i), ("p", j)}
                hits.append(iou)
        thresholds = (0.05, 0.1, 0.3, 0.5)
        one = score_objects(schema_db, "t", "p", iou=thresholds).classes["all objects"]
        assert {least: found.right for least, found in one.items()} == {
            least: sum(iou >= least for iou in hits) for least in thresholds
        }
        assert one[0.05].right > one[0.5].right > 3

    def test_what_is_wrong_with_objects_is_said(self, houses):
        def refused(match, *given, kind=DataError, **more):
            with pytest.raises(kind, match=match):
                score_objects(houses, *given, **more)

        refused("iou=0: expected", "houses", "guessed", iou=0, kind=ConfigError)
        refused("truth= the query gives no column id", "SELECT way AS geom FROM houses", "guessed", kind=QueryError)
        refused("truth=: there is no object", "SELECT osm_id AS id, way AS geom FROM houses WHERE false", "guessed")
        refused("4 objects have 1 different ids", "SELECT 1 AS id, way AS geom FROM houses", "guessed")
        lines = "SELECT osm_id AS id, ST_ExteriorRing(way) AS geom FROM houses"
        refused("prediction= 4 of 4 objects are no areas", "houses", lines)
        with houses.connection() as conn:
            conn.execute("CREATE VIEW seen AS TABLE houses")
        refused("has no primary key of one column", "seen", "guessed")

    def test_large_tables_are_joined_by_the_index(self, houses):
        """20,000 objects on each side: all pairs would be 400 million."""
        with houses.connection() as conn:
            for name in ("t", "p"):
                conn.execute(
                    f"CREATE TABLE {name} AS SELECT n AS id, n % 3 AS value, ST_MakeEnvelope(x, y, x + 8, y + 8, 3857) AS geom "
                    f"FROM generate_series(0, 19999) AS n, LATERAL (SELECT {X0} + n % 200 * 10 AS x, {Y0} + n / 200 * 10 AS y) AS c"
                )
            conn.execute("CREATE INDEX ON t USING gist (geom); ANALYZE t; SET statement_timeout = '60s'")
        one = score_objects(houses, "SELECT id, value, geom FROM t", "SELECT id, value, geom FROM p", iou=0.9)
        assert {name: found[0.9].right for name, found in one.classes.items()} == {"0": 6667, "1": 6667, "2": 6666}

    def test_what_is_the_same_overlaps_wholly(self, schema_db):
        """An overlay's area may lack the last bit; and objects in several SRIDs are refused, not missed."""
        rng = np.random.default_rng(3)
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE t (id int PRIMARY KEY, geom geometry)")
            for i, (x, y, w, h, angle) in enumerate(rng.uniform((0, 0, 5, 5, 0), (3000, 3000, 20, 20, 90), (60, 5))):
                house = shapely.affinity.rotate(shapely.box(X0 + x, Y0 + y, X0 + x + w, Y0 + y + h), angle)
                conn.execute("INSERT INTO t VALUES (%s, ST_GeomFromWKB(%s, 3857))", [i, house.wkb])
        assert score_objects(schema_db, "t", "t", iou=1).classes["all objects"][1.0] == Found(60, 60, 60, 60)
        with schema_db.connection() as conn:
            conn.execute("UPDATE t SET geom = ST_Transform(geom, 4326) WHERE id < 30")
        with pytest.raises(DataError, match="truth=: its objects lie in the SRIDs 3857, 4326"):
            score_objects(schema_db, "t", "t")

    def test_matching_is_one_to_one(self):
        assert matched([("a", "x", 0.6), ("a", "y", 0.9), ("b", "y", 0.8), ("b", "z", 0.2)]) == [0.9, 0.2]


class TestKeptErrors:
    @pytest.fixture
    def tiles(self, world):
        return Tiles.random(world.grid, within=EDGES, count=40, seed=7)

    def test_a_second_round_is_drawn_from_the_errors_of_the_first(self, world, schema_db, tiles):
        errors = np.linspace(0, 1, 40)
        assert keep_errors(schema_db, "mine.tile_errors", tiles, errors, run="round 1") == 40
        query = "SELECT geom, tile AS id, value FROM tile_errors WHERE run = 'round 1' ORDER BY tile"
        again = Tiles.query(schema_db, world.grid, query)
        assert (again.bounds == tiles.bounds).all()
        assert again.ids.tolist() == tiles.ids.tolist()
        assert (again.columns["value"] == errors).all()
        drawn = again.weighted("value").epoch(0, 0)
        assert drawn.columns["value"].mean() == pytest.approx((errors**2).sum() / errors.sum(), abs=0.06)
        hard = Tiles.query(schema_db, world.grid, "SELECT geom, value FROM tile_errors WHERE value > 0.7 ORDER BY value DESC")
        assert (hard.bounds == tiles.bounds[errors > 0.7][::-1]).all()
        rows = ask(schema_db, 'SELECT tile, col, "row", ST_AsText(geom) FROM tile_errors ORDER BY tile')
        assert [row[1:3] for row in rows] == list(zip(tiles.cols.tolist(), tiles.rows.tolist(), strict=True))
        assert shapely.from_wkt(rows[3][3]).equals(shapely.box(*tiles.bounds[3]))

    def test_a_run_is_kept_beside_others_and_replaced_by_itself(self, schema_db, tiles):
        losses = {int(tile): 0.5 for tile in tiles.ids[10:20]}
        assert keep_errors(schema_db, "e", tiles, losses, run="a") == 10
        keep_errors(schema_db, "e", tiles, np.ones(40), run="b")
        keep_errors(schema_db, "e", tiles, {12: 3.0}, run="a")
        assert ask(schema_db, "SELECT run, count(*), sum(value) FROM e GROUP BY run ORDER BY run") == [
            ("a", 10, 7.5),
            ("b", 40, 40.0),
        ]
        assert ask(schema_db, "SELECT value FROM e WHERE run = 'a' AND tile = 12") == [(3.0,)]

    def test_more_tiles_than_one_statement_brings(self, world, schema_db):
        tiles = Tiles.random(world.grid, within=EDGES, count=20_000, seed=1)
        assert keep_errors(schema_db, "e", tiles, np.arange(20_000), run="a") == 20_000
        assert ask(schema_db, "SELECT count(*), sum(value) FROM e") == [(20_000, 19_999 * 10_000)]

    def test_what_can_t_be_kept_is_refused_and_leaves_nothing(self, schema_db, tiles):
        def refused(match, *given, kind=ConfigError, run="a"):
            with pytest.raises(kind, match=match):
                keep_errors(schema_db, *given, run=run)

        refused("infinite or no numbers, the first that of tile 3", "e", tiles, [0, 1, 2, math.nan, *[1] * 36], kind=DataError)
        refused("expected a number for each of 40 tiles", "e", tiles, [1, 2])
        refused("values: expected numbers, found list: could not convert string", "e", tiles, ["x"] * 40)
        refused("values: expected numbers, found Tensor: .*detach", "e", tiles, torch.ones(40, requires_grad=True))
        refused("1 ids are of none of these 40 tiles, such as 99", "e", tiles, {99: 1.0})
        refused("run='': expected a name", "e", tiles, np.ones(40), run="")
        refused("has no schema 'nowhere'", "nowhere.e", tiles, np.ones(40))
        assert not ask(schema_db, "SELECT 1 FROM pg_class WHERE relname = 'e'")
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE e (run text, tile int)")
        refused("e is there already, and has no column tile of type int8", "e", tiles, np.ones(40))

    def test_a_role_that_may_not_write_is_told_which_grant(self, schema_db, tiles):
        keep_errors(schema_db, "e", tiles, np.ones(40), run="a")
        with schema_db.connection() as conn:
            conn.execute("DROP ROLE IF EXISTS pgtiles_reader")
            conn.execute("CREATE ROLE pgtiles_reader LOGIN PASSWORD 'r'; GRANT USAGE ON SCHEMA mine TO pgtiles_reader")
        try:
            known = psycopg.conninfo.conninfo_to_dict(schema_db.conninfo) | {"user": "pgtiles_reader", "password": "r"}
            with (
                Database(psycopg.conninfo.make_conninfo(**known)) as reader,
                pytest.raises(LoadError, match="GRANT SELECT, INSERT"),
            ):
                keep_errors(reader, "mine.e", tiles, np.zeros(40), run="a")
        finally:
            with schema_db.connection() as conn:
                conn.execute("DROP OWNED BY pgtiles_reader; DROP ROLE pgtiles_reader")
        assert ask(schema_db, "SELECT sum(value) FROM e") == [(40.0,)]


# -- the page, and the commands


@pytest.fixture
def page(world, schema_db, tmp_path, monkeypatch):
    """A reader's database: imagery, buildings, roads, districts, and what was predicted, as raster and as areas."""
    rng, side = np.random.default_rng(8), 900
    load.raster(schema_db, [write_tiff(tmp_path / "t.tif", scene(7, (3, side, side)))], "sat_s2")
    houses = [
        (shapely.box(X0 + x, Y0 - y - h, X0 + x + w, Y0 - y), int(floors))
        for (x, y), (w, h), floors in zip(
            rng.uniform(0, (side - 16) * RES, (450, 2)), rng.uniform(20, 40, (450, 2)), rng.integers(1, 7, 450), strict=True
        )
    ]
    burned_ = burned([(g, 1 + (floors >= 5)) for g, floors in houses], (side, side))
    guess = np.where(rng.random(burned_.shape) < 0.01, rng.integers(0, 3, burned_.shape, "uint8"), np.roll(burned_, 1, 1))
    load.raster(schema_db, [write_tiff(tmp_path / "p.tif", guess[None], nodata=255)], "predicted")
    with schema_db.connection() as conn:
        for name, shift in (("buildings", 0), ("predicted_buildings", 4)):
            conn.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, geom geometry(Polygon, 3857), floors int)")
            rows = [(i, shapely.affinity.translate(g, shift, 0).wkb, floors) for i, (g, floors) in enumerate(houses)]
            conn.cursor().executemany(f"INSERT INTO {name} VALUES (%s, ST_GeomFromWKB(%s, 3857), %s)", rows)
        conn.execute("CREATE TABLE districts (name text, geom geometry(Polygon, 3857))")
        for name, west in (("West", 0), ("East", 450)):
            place = [X0 + west * RES, Y0 - side * RES, X0 + (west + 450) * RES, Y0]
            conn.execute("INSERT INTO districts VALUES (%s, ST_MakeEnvelope(%s, %s, %s, %s, 3857))", [name, *place])
        conn.execute("CREATE TABLE roads (way geometry(LineString, 3857), highway text)")
        for number, y in enumerate(range(100, 900, 200)):
            line = shapely.LineString([(X0, Y0 - y * RES), (X0 + side * RES, Y0 - (y + 30) * RES)])
            row = (line.wkb, ("primary", "residential")[number % 2])
            conn.execute("INSERT INTO roads VALUES (ST_GeomFromWKB(%s, 3857), %s)", row)
        for table, column in (("buildings", "geom"), ("predicted_buildings", "geom"), ("districts", "geom"), ("roads", "way")):
            conn.execute(f"CREATE INDEX ON {table} USING gist ({column}); ANALYZE {table}")
    monkeypatch.setenv("PGTILES_URL", f"{world.url}?options=-csearch_path%3Dmine%2Cpublic")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_runs(page):
    """Every block of it, one after the other; what it shows is what is printed."""
    names, text = {}, (ROOT / "docs" / "scoring.md").read_text()
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(code, "scoring.md", "exec"), names)
    assert f"```\n{names['found']}\n```" in text
    with Database() as db:
        assert ask(db, "SELECT (metrics ->> 'mean_iou')::float8 FROM run") == [(names["guess"].confusion.mean("iou"),)]
    assert {name for pair in names["by_road"].by for name in pair} == {"primary", "residential", "West", "East"}
    assert names["house"].f1 > names["near"].confusion.f1[1]
    assert names["objects"].classes["all objects"][0.5].recall > 0.9
    assert (page / "worst.png").stat().st_size > 10_000
    assert len(names["losses"]) == len(names["hard"]) > 8


def test_commands(page):
    found = CliRunner().invoke(
        typer_app, shlex.split(re.search(r"^pgtiles (score .*)$", (ROOT / "docs" / "scoring.md").read_text(), re.M)[1])
    )
    assert found.exit_code == 0, found.output
    assert "accuracy" in found.stdout
    assert min((page / f"{name}.png").stat().st_size for name in ("confusion", "worst")) > 10_000
    by = "SELECT geom, name FROM districts WHERE geom && tile.geom"
    common = ["score", "predicted", "--labels", "buildings", "--json"]
    found = CliRunner().invoke(typer_app, [*common, "--by", by, "--tolerance", "3", "--keep", "e", "--run", "a"])
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert [group["attributes"]["name"] for group in said["by"]] == ["East", "West"]
    assert said["boundaries"]["1"]["f1"] > 0.5
    with Database() as db:
        assert ask(db, "SELECT run, count(*) FROM e GROUP BY run") == [("a", said["tiles"])]
    found = CliRunner().invoke(typer_app, ["score-objects", "buildings", "predicted_buildings", "--iou", "0.5", "--iou", "0.9"])
    assert found.exit_code == 0, found.output
    assert "all objects" in found.stdout
    for written, said in (
        (["score", "predicted"], "--labels"),
        ([*common, "--keep", "e"], "--keep and --run go together"),
    ):
        assert said in str(CliRunner().invoke(typer_app, written).exception)
