"""Lightning as it comes: it sets the epoch of samplers, not of datasets; it saves and loads the state of its DataLoaders."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader

from pgtiles import Grid, Imagery, TileDataset, Tiles
from pgtiles.streaming.loader import Loader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
COUNT, BATCH, EPOCHS = 20, 4, 3


class Reader(lightning.LightningModule):
    """Learns nothing, and notes which tiles came."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch, _):
        self.seen.append((self.current_epoch, batch["tile_id"].tolist()))
        return self.layer(torch.zeros(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder, **quiet, **options)


@pytest.fixture
def make(world):
    grid = Grid.like(world.db, "scene", size=16)
    tiles = Tiles.random(grid, within=world.db.extent("scene", 3857), count=COUNT, seed=5)
    made = []

    def _make():
        made.append(TileDataset(world.url, tiles, {"image": Imagery("scene", bands=(1,))}, batch_size=BATCH, seed=9))
        return made[-1]

    yield _make
    for dataset in made:
        dataset.close()


@pytest.fixture
def want(make):
    dataset = make()
    return [(epoch, batch["tile_id"].tolist()) for epoch in range(EPOCHS) for batch in dataset]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ours", [True, False], ids=["our loader", "a DataLoader"])
@pytest.mark.parametrize("persistent", [True, False])
def test_each_epoch_is_another_one(make, want, tmp_path, workers, ours, persistent):
    kind = make().loader if ours else lambda **options: DataLoader(make(), batch_size=None, **options)
    loader, model = kind(num_workers=workers, persistent_workers=persistent and workers > 0), Reader()
    fit = trainer(tmp_path, enable_checkpointing=False)
    fit.fit(model, loader)
    assert model.seen == want
    assert fit.train_dataloader is loader
    assert not ours or type(fit.train_dataloader) is Loader


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [2, 5, 8])
def test_its_checkpoints_hold_the_place(make, want, tmp_path, workers, stop):
    """Of a training that was stopped in the midst of an epoch, or at its end."""
    path = tmp_path / "checkpoint.ckpt"

    class Stops(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == stop:
                trainer.save_checkpoint(path)
                raise KeyboardInterrupt

    model = Reader()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(tmp_path, callbacks=[Stops()]).fit(model, make().loader(num_workers=workers))
    assert model.seen == want[:stop]
    again = Reader()
    trainer(tmp_path).fit(again, make().loader(num_workers=2 - workers), ckpt_path=path, weights_only=True)
    assert [ids for _, ids in again.seen] == [ids for _, ids in want[stop:]]
