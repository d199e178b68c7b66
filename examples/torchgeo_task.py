"""Train TorchGeo's own segmentation task on tiles out of PostGIS. Its samples are dicts with "image" and "mask", as ours are.

Of the further keys, "bounds" and "tile_id", the task takes no notice. City, tiles and classes are those of helsinki.py, and so
is the picture. Needs torchgeo.
"""

from pathlib import Path

import lightning
import torch
import typer
from helsinki import BATCH, LAYERS, NAMES, WEIGHTS, augment, blocks, database, iou, picture, ready, told
from rich.console import Console
from torchgeo.trainers import SemanticSegmentationTask

from pgtiles import TileDataset, read

EPOCHS, RATE = 5, 2e-3
say = Console(highlight=False, soft_wrap=True).print


class Classes(SemanticSegmentationTask):
    """The task as it is, but for the pixels, which come as they are in the table, 0 to 255."""

    def on_after_batch_transfer(self, batch: dict, _: int) -> dict:
        return batch | {"image": (batch["image"].float() - 110) / 50}


def main(
    output: Path = Path("torchgeo_task.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS
) -> dict[str, float]:
    """Train on most blocks of the city, test on the others, draw. Gives each class's IoU."""
    db = ready(database(url))
    split = blocks()
    train = TileDataset(db, split.train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
    valid = TileDataset(db, split.test, LAYERS, batch_size=BATCH, shuffle=False)  # the task's learning rate follows its loss
    lightning.seed_everything(seed, verbose=False)
    task = Classes(backbone="resnet18", num_classes=len(NAMES), class_weights=WEIGHTS, lr=RATE)  # a U-Net, from random weights
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    trainer.fit(task, train.loader(), valid.loader())
    train.close()
    valid.close()
    test = {key: torch.from_numpy(array) for key, array in read(db, split.test, LAYERS).items()}
    with torch.no_grad():
        images = task.eval().on_after_batch_transfer(test, 0)["image"]
        test["prediction"] = torch.cat([task(part).argmax(1) for part in images.split(BATCH)])
    scores = iou(test["prediction"], test["mask"])
    guess = iou(torch.zeros_like(test["mask"]), test["mask"])
    say(f"IoU in {len(images)} test tiles: {told(scores)}; were everything background, mean {guess['mean']:.2f}")
    picture(test, output)
    say(f"Picture: {output.resolve()}")
    return scores


if __name__ == "__main__":
    typer.run(main)
