"""Lets torchvision be imported beside a torch that it was not built for: its operators are declared, and NMS written out.

    python torchvision_operators.py example.py [argument …]

runs a script so. Where torchvision imports as it is, nothing is done.
"""

import runpy
import sys
from pathlib import Path

import numpy as np
import torch

NAMES = ("nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


def declare():
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    else:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in NAMES:
        library.define(f"{name}(Tensor x) -> Tensor")
        library.define(f"_{name}_backward(Tensor x) -> Tensor")
    from torchvision.ops import boxes

    boxes.nms = nms  # roi_align falls back to plain torch by itself
    return library  # it lasts as long as it is held


def nms(boxes, scores, iou_threshold):
    from torchvision.ops import box_iou

    order = scores.argsort(descending=True)
    over = (box_iou(boxes[order], boxes[order]) > iou_threshold).numpy()
    kept = np.ones(len(order), bool)
    for i in range(len(order)):
        if kept[i]:
            kept[i + 1 :] &= ~over[i, i + 1 :]
    return order[torch.from_numpy(kept)]


if __name__ == "__main__":
    held = declare()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
