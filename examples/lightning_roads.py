"""Train a road model on demo.py's scene with Lightning. The dataset's loader goes to the Trainer as it is.

The dataset itself says which tiles make which batch, so the loader has no sampler, and the Trainer puts none in: of an
iterable dataset it never does, whatever `use_distributed_sampler` says. Each time the Trainer iterates the loader is the next
epoch. Only a run that goes on from a checkpoint has to say which one, and the place for that is `train_dataloader`: it is
called before the first batch is read, and `on_train_epoch_start` after.
"""

from pathlib import Path

import lightning
import torch
import typer
from demo import BATCH, LAYERS, UNSEEN, areas, augment, criterion, database, fill
from rich.console import Console
from unet import UNet

from pgtiles import Database, TileDataset, plot

EPOCHS, RATE = 10, 4e-3  # few tiles, so few steps an epoch: after four epochs it finds no road yet
say = Console(highlight=False, soft_wrap=True).print


class Scene(lightning.LightningDataModule):
    """Random tiles of the scene's east to train on, tiles that cover its west to test on."""

    def __init__(self, db: Database, seed: int = 0):
        super().__init__()
        train, test, _ = areas(db)
        self.train = TileDataset(db, train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
        self.test = TileDataset(db, test, LAYERS, batch_size=BATCH, shuffle=False, transform=unseen)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        self.train.set_epoch(self.trainer.current_epoch)
        return self.train.loader()

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        return self.test.loader()

    def teardown(self, stage: str) -> None:
        self.train.close()
        self.test.close()


class Roads(lightning.LightningModule):
    """A U-Net that learns roads. It logs `iou`, of the roads of all test tiles, and `iou_all_road`, were all of them road."""

    def __init__(self, rate: float = RATE, width: int = 12):
        super().__init__()
        self.save_hyperparameters()
        self.model = UNet(channels=1, width=width).to(memory_format=torch.channels_last)  # faster on a CPU

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        loss = criterion(self.model(batch["image"]), batch)
        self.log("loss", loss, batch_size=len(batch["image"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.pixels = torch.zeros(4, device=self.device)  # of both, of either, of roads, of the scene

    def validation_step(self, batch: dict, _: int) -> None:
        found, road, seen = self.predict_step(batch) == 1, batch["mask"] == 1, batch["mask"] != UNSEEN
        self.pixels += torch.stack([where.sum() for where in (found & road, (found | road) & seen, road, seen)])

    def on_validation_epoch_end(self) -> None:
        both, either, road, seen = self.pixels
        self.log_dict({"iou": both / either.clamp(min=1), "iou_all_road": road / seen})

    def predict_step(self, batch: dict, _: int = 0) -> torch.Tensor:
        return self.model(batch["image"]).argmax(1)

    def configure_optimizers(self) -> dict:
        optimiser = torch.optim.AdamW(self.parameters())
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.hparams["rate"], total_steps=steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(
    output: Path = Path("lightning_roads.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS
) -> dict[str, float]:
    """Load the scene, train, test on land the model has not seen, draw. Gives what was logged last."""
    db = database(url)
    fill(db)
    lightning.seed_everything(seed, verbose=False)
    scene, roads = Scene(db, seed), Roads()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    trainer.fit(roads, datamodule=scene)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    say(f"IoU of roads in the test area: {logged['iou']:.2f}; were everything road, {logged['iou_all_road']:.2f}")
    batch = next(iter(scene.test))
    with torch.no_grad():
        shown = {"image": batch["image"], "truth": batch["mask"].clamp(min=0), "prediction": roads.eval().predict_step(batch)}
    plot.batch(shown, output, classes={1: "road"}, title="Las Vegas, test tiles. Imagery: SpaceNet, CC BY-SA 4.0")
    scene.teardown("fit")
    say(f"Picture: {output.resolve()}")
    return logged


def unseen(sample: dict, _: torch.Generator) -> dict:
    """Pixels that the scene does not cover count for nothing."""
    sample["mask"][sample["image"][0] == 0] = UNSEEN
    return sample


if __name__ == "__main__":
    typer.run(main)
