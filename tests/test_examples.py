"""The examples, run: each tells a figure that a plain guess does not reach. Those that need torchvision run where it is found."""

import importlib
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import shared
from psycopg import sql

from pgtiles import Database, Imagery, TileDataset, load, predict

ROOT = Path(__file__).parents[1]
PEERS = Path(os.environ.get("PGTILES_PEERS_PYTHON") or ROOT / ".venv-peers" / "bin" / "python")


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def url(template):
    """One database for all examples: the city is painted once."""
    with shared(template, "pgtiles_examples") as url:
        yield url


def run(name, url, tmp_path, **more):
    """What an example's main gives, after it has drawn a picture."""
    picture = tmp_path / f"{name}.png"
    scores = importlib.import_module(name).main(output=picture, url=url, **more)
    assert picture.stat().st_size > 30_000
    return scores


def test_detect(url, tmp_path):
    """Few houses, and a run differs with the number of threads: now and then one learns little, so that a second may show it."""
    scores = {}
    for seed in (1, 0):
        scores = run("detect", url, tmp_path, epochs=30, seed=seed)
        if scores["seen recall"] > 20 * scores["seen thrown"] + 0.04 and scores["seen precision"] > 0.1:
            return
    pytest.fail(f"what it finds is hardly more than what boxes thrown at random find: {scores}")


def test_classify(url, tmp_path):
    scores = run("classify", url, tmp_path, epochs=4)
    assert scores["the small network"] > max(scores["the commonest class"], scores["colour alone"]) + 0.05


def test_hard_examples(url, tmp_path):
    """What is drawn is harder; and a second round of it helps more there than one of all tiles."""
    scores = run("hard_examples", url, tmp_path)
    assert scores["loss, drawn"] > 1.1 * scores["loss"]
    assert scores["hardest, drawn by their loss"] < 0.9 * scores["hardest before"]
    assert scores["hardest, drawn by their loss"] < scores["hardest, all alike"]
    with Database(url) as db:
        rows = db.query(sql.SQL("SELECT run, count(*), min(value) > 0 FROM helsinki_errors GROUP BY run ORDER BY run"))
    assert [(run, positive) for run, _, positive in rows] == [
        ("round 1", True), ("round 2, all alike", True), ("round 2, drawn by their loss", True)
    ]  # fmt: skip
    assert rows[1][1] == rows[0][1] // 4


def test_two_heads(url, tmp_path):
    scores = run("two_heads", url, tmp_path, epochs=2)
    assert scores["IoU"] > 2 * scores["IoU, all road"]
    assert scores["error"] < 0.75 * scores["error, always the mean"]


@pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore:.*IterableDataset.*__len__",
    "ignore:.*workers",
    "ignore:You passed in a `val_dataloader`",
)
class TestLightning:
    def test_it_learns(self, url, tmp_path):
        scores = run("lightning_roads", url, tmp_path, epochs=8)
        assert scores["iou"] > scores["iou_all_road"] + 0.1

    def test_each_epoch_is_the_dataset_s_own_also_after_a_checkpoint(self, url, tmp_path):
        """The tiles that a Trainer sees are those that the dataset gives, epoch by epoch; a run that goes on reads the next epoch."""
        import lightning
        from demo import fill
        from lightning_roads import Scene

        class Noted(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

            def training_step(self, batch, _):
                self.seen.append((self.current_epoch, batch["tile_id"].tolist()))
                return self.weight * 0

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        def trained(epochs, checkpoint=None):
            module = Noted()
            trainer = lightning.Trainer(
                max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                default_root_dir=tmp_path, limit_val_batches=0, enable_checkpointing=False,
            )  # fmt: skip
            trainer.fit(module, datamodule=Scene(db, seed=3), ckpt_path=checkpoint)
            trainer.save_checkpoint(tmp_path / "last.ckpt")
            return module.seen

        with Database(url) as db:
            fill(db)
            scene = Scene(db, seed=3)
            expected = [(epoch, batch["tile_id"].tolist()) for epoch in range(4) for batch in scene.train]
            scene.teardown("fit")
            assert trained(2) + trained(4, tmp_path / "last.ckpt") == expected


class TestPeers:
    """In an environment with torchvision: .venv-peers, or the one that PGTILES_PEERS_PYTHON names."""

    def run(self, name, url, tmp_path, *options):
        self.need(name)
        picture = tmp_path / f"{name}.png"
        script = [ROOT / "tests" / "torchvision_operators.py", ROOT / "examples" / f"{name}.py"]
        said = self.python(*script, "--url", url, "--output", picture, *options)
        assert picture.stat().st_size > 30_000
        return [float(number) for number in re.search(r"IoU .* (\d\.\d+); were everything .* (\d\.\d+)", said).groups()]

    def need(self, name):
        package = {"pretrained": "segmentation_models_pytorch", "torchgeo_task": "torchgeo.trainers"}[name]
        if not PEERS.exists():
            pytest.skip(f"no {PEERS}: an environment with pgtiles, torchvision and {package}, see docs/examples.md")
        code = f"import torchvision_operators; held = torchvision_operators.declare(); import psycopg, {package}"
        made = self.process("-c", code)
        if made.returncode:
            pytest.skip(f"{PEERS} lacks something: {made.stderr.strip().splitlines()[-1]}")

    def python(self, *arguments):
        made = self.process(*arguments)
        assert made.returncode == 0, made.stderr[-2000:]
        return made.stdout

    def process(self, *arguments):
        path = os.pathsep.join(str(ROOT / folder) for folder in (".", "tests", "examples"))
        return subprocess.run(
            [PEERS, *arguments], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )

    def test_a_network_made_for_three_bands(self, url, tmp_path):
        found, everything = self.run("pretrained", url, tmp_path, "--epochs", "3")
        assert found > everything + 0.2

    def test_a_torchgeo_task(self, url, tmp_path):
        found, everything = self.run("torchgeo_task", url, tmp_path, "--epochs", "2")
        assert found > everything + 0.2

    def test_the_blocks_of_targets_md_with_torchvision_and_torchgeo(self, url, monkeypatch):
        self.need("torchgeo_task")
        monkeypatch.setenv("PGTILES_URL", url)
        with Database(url) as db:
            load.sample(db, "spacenet", replace=True)
        blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "targets.md").read_text(), re.M | re.S)
        checks = "assert sum(losses.values()) > 0 and target['masks'].shape[1:] == (256, 256) and len(target['boxes'])"
        declared = "import torchvision_operators; held = torchvision_operators.declare()"
        self.python("-c", "\n".join([declared, *blocks, checks]))

    def test_a_widened_convolution_sees_grey_as_before(self, url):
        self.need("pretrained")
        self.python("-c", WIDENED)


WIDENED = """
import torchvision_operators; held = torchvision_operators.declare()
import torch
from pretrained import widened
conv = torch.nn.Conv2d(3, 8, 7, stride=2, padding=3)
grey = torch.randn(2, 1, 32, 32)
for bands in (1, 2, 3, 4, 13):
    wide = widened(conv, bands)
    torch.testing.assert_close(wide(grey.expand(-1, bands, -1, -1)), conv(grey.expand(-1, 3, -1, -1)))
assert torch.equal(widened(conv, 3).weight, conv.weight)
# what told red from blue still does, in proportion
torch.testing.assert_close(widened(conv, 6).weight[:, :3] * 2, conv.weight)
"""


def test_predict(url, tmp_path, monkeypatch):
    """The demo's model makes a map that GDAL reads back as a picture blended whole, in memory: bit for bit."""
    example, demo = importlib.import_module("predict"), importlib.import_module("demo")
    models, fit = [], demo.fit
    monkeypatch.setattr(demo, "fit", lambda *given: models.append(fit(*given)) or models[0])
    scores = run("predict", url, tmp_path, epochs=4, detail=tmp_path / "polygons.png")
    assert (tmp_path / "polygons.png").stat().st_size > 30_000
    assert scores["IoU"] > scores["all road"] + 0.1
    with Database(url) as db:
        tiles = example.scene_tiles(db)
        images = TileDataset(db, tiles, {"image": Imagery("demo_scene", valid=True)}, batch_size=8, shuffle=False)
        predict(models[0], images, "demo_twice")
        total, weight, side = None, None, np.maximum(np.rint(1024 * np.sin(np.pi * (np.arange(96) + 0.5) / 96) ** 2), 1)
        (west, _), (_, north) = tiles.bounds[:, :2].min(0), tiles.bounds[:, 2:].max(0)
        for batch in images:
            # a last lot is filled up, as a convolution's last bit may depend on how many come
            filling = batch["image"][-1:].repeat(8 - len(batch["image"]), 1, 1, 1)
            with torch.no_grad():
                answers = models[0].eval()(torch.cat([batch["image"], filling])).softmax(1).numpy()
            for answer, valid, (xmin, _, _, ymax) in zip(answers, batch["image_valid"], batch["bounds"].tolist(), strict=False):
                if total is None:
                    height, width = (round(v) for v in (north - tiles.bounds[:, 1].min(), tiles.bounds[:, 2].max() - west))
                    total, weight = np.zeros((2, height, width)), np.zeros((height, width))
                row, col = round(north - ymax), round(xmin - west)
                window = side[:, None] * side * valid.numpy()
                total[:, row : row + 96, col : col + 96] += window * answer
                weight[row : row + 96, col : col + 96] += window
        expected = np.where(weight > 0, (total / np.where(weight > 0, weight, 1)).argmax(0), 255)
        with db.connection() as conn:
            conn.execute("SET postgis.gdal_enabled_drivers = 'ENABLE_ALL'")
            [(blob,)] = conn.execute("SELECT ST_AsGDALRaster(ST_Union(rast), 'GTiff') FROM demo_twice").fetchall()
    with rasterio.MemoryFile(bytes(blob)) as memory, memory.open() as file:
        row, col = file.index(west + 0.5, north - 0.5)
        found = file.read(1)[row : row + height, col : col + width]
    assert (found == expected).all()
    assert (found == 1).mean() > 0.03
