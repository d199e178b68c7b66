"""A small U-Net in plain PyTorch."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 × 3 convolutions, each normalised and rectified; height and width stay."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Images (B, C, H, W), as the loader gives them, to logits (B, K, H, W).

    The first layer standardises the pixels with what it has seen in training, so raw counts may come in.
    Each of the `depth` levels halves the height and width and doubles the channels, on the way back up the
    other way around; H and W must be multiples of 2 ** depth.

    Args:
        channels: bands of the image, C.
        classes: classes of the mask, K; class 0 is the background.
        width: channels of the first level.
        depth: how often the image is halved.

    """

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 16, depth: int = 3):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        pairs = list(pairwise(widths))
        self.standardise = nn.BatchNorm2d(channels, affine=False)
        self.stem = block(channels, width)
        self.down = nn.ModuleList(block(fine, coarse) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs))
        self.merge = nn.ModuleList(block(2 * fine, fine) for fine, _ in reversed(pairs))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of every class at every pixel."""
        x = self.stem(self.standardise(image.float()))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(nn.functional.max_pool2d(x, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)
