"""Train TorchGeo's own segmentation task on tiles out of PostGIS. Its samples are dicts with "image" and "mask", as ours are.

Of the further keys, "bounds" and "tile_id", the task takes no notice. The scene and its data module are those of
lightning_roads.py: a TorchGeo task is a LightningModule. Needs torchgeo.
"""

from pathlib import Path

import lightning
import torch
import typer
from demo import UNSEEN, database, fill
from lightning_roads import Scene
from rich.console import Console
from torchgeo.trainers import SemanticSegmentationTask

from pgtiles import plot

EPOCHS = 6
say = Console(highlight=False, soft_wrap=True).print


class Roads(SemanticSegmentationTask):
    """The task as it is, but for the pixels, which come as the satellite counted them."""

    def on_after_batch_transfer(self, batch: dict, _: int) -> dict:
        return batch | {"image": (batch["image"] - 400) / 200}


def main(
    output: Path = Path("torchgeo_task.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS
) -> dict[str, float]:
    """Load the scene, train, test on land the model has not seen, draw. Gives what was logged last."""
    db = database(url)
    fill(db)
    lightning.seed_everything(seed, verbose=False)
    scene = Scene(db, seed)
    # 1 is road and 0 is not. Of the losses that TorchGeo offers, the focal one leaves out what the scene does not cover.
    task = Roads(model="unet", backbone="resnet18", in_channels=1, task="binary", loss="focal", ignore_index=UNSEEN, lr=1e-3)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    trainer.fit(task, datamodule=scene)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    batches = list(scene.test)
    mask = torch.cat([batch["mask"] for batch in batches])
    logged["all_road"] = float((mask == 1).sum() / (mask != UNSEEN).sum())
    say(
        f"IoU of roads in the test area: {logged['val_BinaryJaccardIndex']:.2f}; were everything road, {logged['all_road']:.2f}"
    )
    with torch.no_grad():
        found = (task.eval()(task.on_after_batch_transfer(batches[0], 0)["image"])[:, 0] > 0).long()
    shown = {"image": batches[0]["image"], "truth": batches[0]["mask"].clamp(min=0), "prediction": found}
    plot.batch(shown, output, classes={1: "road"}, title="Las Vegas, test tiles. Imagery: SpaceNet, CC BY-SA 4.0")
    scene.teardown("fit")
    say(f"Picture: {output.resolve()}")
    return logged


if __name__ == "__main__":
    typer.run(main)
