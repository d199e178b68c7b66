"""Pictures of a batch: what they show is read back from the pixels that were drawn."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from pgtiles import Grid, Tiles, plot
from pgtiles.errors import ConfigError, PgtilesError

SIDE = 40


def images(bands, count=2, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, bands, SIDE, SIDE)).astype(dtype)


def quarters(count=2):
    """Masks of 0, 3, 1 and 7, a quarter each: upper left, upper right, lower left, lower right."""
    mask = np.zeros((count, SIDE, SIDE), "int64")
    mask[:, : SIDE // 2, SIDE // 2 :] = 3
    mask[:, SIDE // 2 :, : SIDE // 2] = 1
    mask[:, SIDE // 2 :, SIDE // 2 :] = 7
    return mask


def drawn(figure, axis, row, column):
    """The colour on the canvas at the middle of a pixel of the picture in this axis."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    x, y = axis.transData.transform((column, row))
    return pixels[round(pixels.shape[0] - y), round(x)]


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_tensors_and_arrays(as_tensor):
    sample = {"image": images(3), "mask": quarters(), "bounds": np.zeros((2, 4)), "tile_id": np.array([7, 40])}
    if as_tensor:
        sample = {name: torch.from_numpy(array) for name, array in sample.items()}
    figure = plot.batch(sample)
    assert [axis.get_title() for axis in figure.axes] == ["image", "mask", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["tile 7", "", "tile 40", ""]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 12])
def test_any_number_of_bands_of_any_type(bands, dtype):
    """Three bands are red, green and blue; of fewer the first is shown, in grey."""
    batch = images(bands, dtype=dtype)
    figure = plot.batch({"image": batch})
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == (SIDE, SIDE, 3)
    for channel in range(3):
        of = batch[0, channel if bands >= 3 else 0]
        order = np.argsort(of, axis=None, kind="stable")
        assert (np.diff(shown[..., channel].ravel()[order]) >= 0).all()  # brighter where the band is greater
    assert (shown.min(), shown.max()) == (0, 1)


def test_which_bands():
    batch = images(5)
    shown = np.asarray(plot.batch({"image": batch}, bands=(5, 2, 4)).axes[0].images[0].get_array())
    for channel, band in enumerate((5, 2, 4)):
        of = batch[0, band - 1].astype(float)
        assert np.corrcoef(shown[..., channel].ravel(), of.ravel())[0, 1] > 0.99


def test_a_flat_image_and_missing_pixels():
    flat = np.full((1, 3, SIDE, SIDE), 9, "uint16")
    holed = images(3, 1, "float32")
    holed[0, :, :5] = np.nan
    for batch in (flat, holed):
        shown = np.asarray(plot.batch({"image": batch}).axes[0].images[0].get_array())
        assert np.isfinite(shown).all()


class TestMasks:
    def test_each_value_in_its_own_colour_where_it_is(self):
        """Over white, where there is no image: 65 % of the legend's colour."""
        figure = plot.batch({"mask": quarters()})
        colours = {int(t.get_text()): to_rgb(p.get_facecolor()) for t, p in zip(
            figure.legends[0].get_texts(), figure.legends[0].get_patches(), strict=True)}  # fmt: skip
        assert sorted(colours) == [1, 3, 7]
        assert len(set(colours.values())) == 3
        for axis in figure.axes:
            for (row, column), value in {(10, 10): 0, (10, 30): 3, (30, 10): 1, (30, 30): 7}.items():
                want = 0.35 + 0.65 * np.array(colours[value]) if value else np.ones(3)
                np.testing.assert_allclose(drawn(figure, axis, row, column), want, atol=0.01)

    def test_over_the_image_in_grey(self):
        """The image shows through the mask, and is grey beside it."""
        batch = images(3, 1)
        figure = plot.batch({"image": batch, "mask": quarters(1)})
        image, mask = figure.axes
        for row, column in ((10, 10), (3, 17)):
            got = drawn(figure, mask, row, column)
            assert np.ptp(got) < 0.01
            np.testing.assert_allclose(got, drawn(figure, image, row, column).mean(), atol=0.02)
        colour = np.array(to_rgb(figure.legends[0].get_patches()[2].get_facecolor()))  # of 7
        for row, column in ((25, 25), (31, 38)):
            grey = drawn(figure, image, row, column).mean()
            np.testing.assert_allclose(drawn(figure, mask, row, column), 0.35 * grey + 0.65 * colour, atol=0.02)

    def test_the_legend_names_the_classes_that_are_there(self):
        sample = {"mask": quarters()}
        assert legend(plot.batch(sample)) == ["1", "3", "7"]
        assert legend(plot.batch(sample, classes={1: "road", 7: "water", 9: "nowhere"})) == ["road (1)", "3", "water (7)"]
        assert legend(plot.batch(sample, background=3)) == ["0", "1", "7"]
        assert legend(plot.batch({"mask": quarters() * 0})) == []

    def test_a_class_keeps_its_colour_in_all_masks(self):
        figure = plot.batch({"a": quarters(1), "b": np.full((1, SIDE, SIDE), 7)})
        np.testing.assert_array_equal(drawn(figure, figure.axes[0], 30, 30), drawn(figure, figure.axes[1], 30, 30))
        assert legend(figure) == ["1", "3", "7"]

    def test_a_class_keeps_its_colour_from_picture_to_picture(self):
        """Also where another class is missing, as long as the names are the same."""
        names = {1: "road", 3: "park", 7: "water"}
        whole = plot.batch({"a": quarters(1)}, classes=names)
        without = plot.batch({"a": np.full((1, SIDE, SIDE), 7)}, classes=names)
        water = drawn(whole, whole.axes[0], 30, 30)
        np.testing.assert_array_equal(water, drawn(without, without.axes[0], 30, 30))
        assert legend(without) == ["water (7)"]

    def test_colours_of_ones_own(self):
        figure = plot.batch({"a": quarters(1)}, colours={3: "tab:green"})
        green = [to_rgb(p.get_facecolor()) for p in figure.legends[0].get_patches()][1]
        assert green == pytest.approx(to_rgb("tab:green"))
        np.testing.assert_allclose(drawn(figure, figure.axes[0], 10, 30), 0.35 + 0.65 * np.array(green), atol=0.01)

    def test_what_is_not_shown_is_not_in_the_legend(self):
        mask = quarters(3)
        mask[2] = 5
        assert legend(plot.batch({"mask": mask}, count=2)) == ["1", "3", "7"]

    def test_more_classes_than_colours(self):
        mask = np.arange(16).repeat(100).reshape(1, SIDE, SIDE)
        assert len(legend(plot.batch({"mask": mask}))) == 15


def test_count_and_title():
    figure = plot.batch({"image": images(3, 6), "mask": quarters(6)}, title="Six tiles")
    assert len(figure.axes) == 4 * 2
    assert figure.get_suptitle() == "Six tiles"
    assert len(plot.batch({"image": images(3, 6)}, count=6).axes) == 6
    assert len(plot.batch({"image": images(3, 1)}).axes) == 1


@pytest.mark.parametrize(
    ("sample", "options", "says"),
    [
        ({"bounds": np.zeros((2, 4)), "tile_id": np.arange(2)}, {}, "images or .* masks"),
        ({"image": images(3)[0]}, {"count": 0}, "count=0"),
        ({"image": images(3)}, {"bands": (0, 1, 2)}, "bands="),
        ({"image": images(3)}, {"bands": (1, 2)}, "bands="),
        ({"image": images(3)}, {"bands": (1, 2, 4)}, "bands="),
    ],
    ids=["nothing", "no rows", "band 0", "two bands", "band 4 of 3"],
)
def test_wrong_arguments(sample, options, says):
    with pytest.raises(ConfigError, match=says):
        plot.batch(sample, **options)


class TestFile:
    SAMPLE = {"image": images(3), "mask": quarters()}  # noqa: RUF012

    def test_a_png(self, tmp_path):
        figure = plot.batch(self.SAMPLE, tmp_path / "batch.png")
        pixels = imread(tmp_path / "batch.png")
        assert [p.name for p in tmp_path.iterdir()] == ["batch.png"]
        width, height = figure.get_size_inches()
        assert pixels.shape[:2] == (int(height * 110), int(width * 110))
        assert pixels[..., :3].std() > 0.1

    def test_other_formats(self, tmp_path):
        plot.batch(self.SAMPLE, str(tmp_path / "batch.svg"))
        assert (tmp_path / "batch.svg").read_text().startswith("<?xml")

    def test_a_second_one_takes_its_place(self, tmp_path):
        (tmp_path / "batch.png").write_text("old")
        plot.batch(self.SAMPLE, tmp_path / "batch.png")
        assert imread(tmp_path / "batch.png").ndim == 3

    @pytest.mark.parametrize("old", [None, "old"])
    def test_whole_or_not_at_all(self, tmp_path, old):
        """A figure that fails halfway, after savefig began to write, leaves what was there."""
        path = tmp_path / "batch.png"
        if old:
            path.write_text(old)
        figure = plot.batch(self.SAMPLE)
        write = figure.savefig

        def full_disk(file, **options):
            write(file, **options)
            assert file != path
            raise OSError(28, "No space left on device")

        figure.savefig = full_disk
        with pytest.raises(OSError, match="No space left"):
            plot.save(figure, path)
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("batch.png", "old")] if old else [])

    @pytest.mark.parametrize("name", ["batch.nonsense", "no/such/folder/batch.png"])
    def test_a_path_that_can_not_be_written(self, tmp_path, name):
        with pytest.raises(PgtilesError, match=name):
            plot.batch(self.SAMPLE, tmp_path / name)
        assert list(tmp_path.iterdir()) == []


class TestTiles:
    """What a set of tiles is like; the columns are read back from bars and colours."""

    GRID = Grid(srid=3857, resolution=1, size=10)

    def row(self, **columns):
        """Tiles side by side, 10 apart."""
        n = len(next(iter(columns.values())))
        return Tiles(self.GRID, np.arange(n) * 20, np.zeros(n, int)).with_columns(**columns)

    def at(self, figure, x, y):
        """The colour of a place on the map."""
        return drawn(figure, figure.axes[0], y, x)

    def test_a_histogram_has_each_tile_once(self):
        values = np.append(np.zeros(70), np.linspace(0.1, 1, 30))
        figure = plot.histogram(self.row(road=values), "road", bins=10)
        heights = [bar.get_height() for bar in figure.axes[0].patches]
        np.testing.assert_array_equal(heights, np.histogram(values, bins=10)[0])
        assert figure.axes[0].get_title() == "100 tiles, 70 of them with none"

    @pytest.mark.parametrize("values", [["b", "a", "b"], [7, 3, 7], [True, False, True]], ids=["texts", "numbers", "truths"])
    def test_categories_have_a_bar_each(self, values):
        figure = plot.histogram(self.row(kind=values), "kind")
        assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 2]
        assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == [str(v) for v in sorted(set(values))]

    def test_a_map_shows_each_tile_in_its_place_and_colour(self):
        """A text column of a split: where no tile lies, nothing is drawn."""
        figure = plot.map(self.row(split=["train", "test", "train", "val"]), by="split")
        assert legend(figure) == ["test", "train", "val"]
        shades = dict(zip(legend(figure), (p.get_facecolor() for p in figure.legends[0].get_patches()), strict=True))
        for place, name in enumerate(("train", "test", "train", "val")):
            want = 0.7 * np.array(shades[name][:3]) + 0.3  # see-through by a third, on white
            np.testing.assert_allclose(self.at(figure, 20 * place + 5, -5), want, atol=0.02)
            np.testing.assert_allclose(self.at(figure, max(20 * place - 5, 15), -5), 1)

    def test_numbers_are_on_a_scale(self):
        figure = plot.map(self.row(road=np.linspace(0, 1, 30)), by="road")
        assert figure.axes[1].get_ylabel() == "road"
        light = [self.at(figure, 20 * place + 5, -5).sum() for place in (0, 10, 20, 29)]
        assert light == sorted(light, reverse=True)

    def test_of_many_tiles_a_cell_shows_the_greatest(self):
        rng = np.random.default_rng(0)
        cols, rows = rng.integers(0, 2000, 30_000), rng.integers(0, 1000, 30_000)
        tiles = Tiles(self.GRID, cols, rows).with_columns(road=(cols >= 1000) * rng.random(30_000))
        shown = plot.map(tiles, by="road").axes[0].images[0]
        cells, (left, right, low, _) = shown.get_array().filled(np.nan), shown.get_extent()
        assert max(cells.shape) in (400, 401)
        side = (right - left) / cells.shape[1]
        x, y = cols + 5, -rows - 5
        for r, c in rng.integers(0, cells.shape, (200, 2)):
            inside = (x >= left + c * side) & (x < left + (c + 1) * side) & (y >= low + r * side) & (y < low + (r + 1) * side)
            np.testing.assert_equal(cells[r, c], tiles.columns["road"][inside].max(initial=-1) if inside.any() else np.nan)
        assert np.nanmax(cells[:, : cells.shape[1] // 2 - 2]) == 0

    def test_without_a_column_and_to_a_file(self, tmp_path):
        figure = plot.map(self.row(x=[1, 2]), tmp_path / "map.png", title="mine")
        assert (legend(figure), figure.axes[0].get_title()) == ([], "mine")
        assert imread(tmp_path / "map.png").std() > 0

    def test_refused(self):
        for draw in (plot.histogram, lambda tiles, name: plot.map(tiles, by=name)):
            with pytest.raises(ConfigError, match="no column 'raod', but road"):
                draw(self.row(road=[1.0]), "raod")
        with pytest.raises(ConfigError, match="there is no tile to draw"):
            plot.map(self.row(road=[1.0])[:0])
