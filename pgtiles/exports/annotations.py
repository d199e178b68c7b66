"""Objects beside images, as detectors read them: COCO's JSON, YOLO's text, PASCAL VOC's XML and palettes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from ..errors import ConfigError
from .exported import OBJECTS, WHOLE, Beside, Contents, Found, Json, Notes, One
from .pictures import Rings, covered


def _layers(contents: Contents, name: str) -> tuple[str, str]:
    """The layer of imagery, and that of objects."""
    image = contents.the("image", "image", needed=f"format={name!r}: expected a layer of imagery")
    objects = contents.the("labels", *OBJECTS, needed=f"format={name!r}: expected a layer of Instances, Boxes or Labels")
    return str(image), str(objects)


def _check(contents: Contents, name: str) -> tuple[str, str]:
    image, objects = _layers(contents, name)
    contents.check_image(image)
    contents.check_objects(image, objects)
    return image, objects


@dataclass(frozen=True)
class Coco:
    """images/, and annotations/instances_<split>.json, in which objects are polygons, or run lengths where they have holes."""

    images: str = "png"
    shard: bool = False

    def check(self, contents: Contents) -> None:
        """There are an image and objects."""
        _check(contents, "coco")

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """As images/17.png."""
        name, objects = _layers(contents, "coco")
        height, width = one.sample[name].shape[-2:]
        file = f"{one.id}.{contents.suffix}"
        seen = [_annotation(thing, height, width) for thing in contents.found(one, objects)]
        noted = {"image": {"file_name": file, "width": width, "height": height}, "annotations": seen}
        return {f"images/{file}": contents.drawn(one, name)}, {"coco": noted}

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """The JSON of each split; their classes are the same."""
        known: dict[int, str] = dict(contents.classes.get(_layers(contents, "coco")[1], {}))
        if not known:
            labels = {thing["category_id"] for note in notes() for thing in note["coco"]["annotations"]}
            known = {label: str(label) for label in sorted(labels)}
        for split in splits:
            yield f"annotations/instances_{split or WHOLE}.json", _coco(notes, split, known)


def _annotation(thing: Found, height: int, width: int) -> Json:
    x0, y0, x1, y1 = thing.box
    shape: Any = []
    if all(len(rings) == 1 for rings in thing.parts):
        shape = [[side for point in rings[0] for side in point] for rings in thing.parts]
    else:
        shape = _run_lengths(thing.parts, height, width)
    area = sum(_area(rings[0]) - sum(map(_area, rings[1:])) for rings in thing.parts)
    about = {
        "category_id": thing.label, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0, "segmentation": shape,
        "area": area if thing.parts else (x1 - x0) * (y1 - y0),
    }  # fmt: skip
    return about if thing.id is None else about | {"feature_id": thing.id}


def _area(ring: list[tuple[float, float]]) -> float:
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True))) / 2


def _run_lengths(parts: list[Rings], height: int, width: int) -> Json:
    """As COCO counts them: pixels column by column, those outside first."""
    counts, last, run = list[int](), 0, 0
    for value in covered(parts, height, width).T.reshape(-1).tolist():
        if value != last:
            counts.append(run)
            last, run = value, 0
        run += 1
    return {"size": [height, width], "counts": [*counts, run]}


def _coco(notes: Notes, split: str, classes: dict[int, str]) -> Iterator[str]:
    """The file, piece by piece: it may be larger than memory."""
    categories = [{"id": value, "name": name, "supercategory": ""} for value, name in classes.items()]
    head = {"info": {"description": "pgtiles"}, "licenses": [], "categories": categories}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ",\n"
    images = ({"id": note["id"], **note["coco"]["image"]} for note in notes() if note["split"] == split)
    yield from _listed("images", images)
    things = ((note["id"], thing) for note in notes() if note["split"] == split for thing in note["coco"]["annotations"])
    yield ",\n"
    yield from _listed("annotations", ({"id": n, "image_id": image, **thing} for n, (image, thing) in enumerate(things, 1)))
    yield "}\n"


def _listed(name: str, each: Iterable[Json]) -> Iterator[str]:
    yield f'"{name}": ['
    for n, one in enumerate(each):
        yield f"{',' * (n > 0)}\n{json.dumps(one)}"
    yield "\n]"


@dataclass(frozen=True)
class Yolo:
    """images/<split>/, labels/<split>/ with a line an object, and data.yaml, as Ultralytics reads them."""

    images: str = "png"
    shard: bool = False

    def check(self, contents: Contents) -> None:
        """There are an image, objects, and classes, which YOLO numbers from 0."""
        _, objects = _check(contents, "yolo")
        if not contents.classes.get(objects):
            raise ConfigError(
                f"format='yolo' numbers classes from 0, and those of layer {objects!r} are not known: name them all, as in "
                "classes={1: 'building'}"
            )

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """As images/train/17.png and labels/train/17.txt."""
        name, objects = _layers(contents, "yolo")
        height, width = one.sample[name].shape[-2:]
        numbers = {value: n for n, value in enumerate(contents.classes[objects])}
        lines = []
        for thing in contents.found(one, objects):
            x0, y0, x1, y1 = thing.box
            sides = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(f"{numbers[thing.label]} {' '.join(f'{side:.8g}' for side in sides)}\n")
        where = one.split or WHOLE
        image = {f"images/{where}/{one.id}.{contents.suffix}": contents.drawn(one, name)}
        return image | {f"labels/{where}/{one.id}.txt": "".join(lines).encode()}, {}

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """What a trainer is told: where the images of each split are, and the classes."""
        names = contents.classes[_layers(contents, "yolo")[1]].values()
        lines = [f"{json.dumps(split or WHOLE)}: {json.dumps(f'images/{split or WHOLE}')}\n" for split in splits]
        lines += ["names:\n", *(f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, name in enumerate(names))]
        yield "data.yaml", iter(lines)


@dataclass(frozen=True)
class Voc:
    """PASCAL VOC's folders: JPEGImages, Annotations, SegmentationClass and SegmentationObject, and ImageSets."""

    images: str = "jpeg"
    shard: bool = False

    def check(self, contents: Contents) -> None:
        """There are an image and objects, and a mask, if any, is of 8 bits."""
        image, _ = _check(contents, "voc")
        if mask := contents.the("labels", "mask"):
            contents.check_image(mask, "png")
            contents.check_objects(image, mask)
            if contents.layers[mask].sheet.dtype not in {"int64", "uint8"}:
                raise ConfigError(f"layer {mask!r}: a palette has 256 colours: give the layer dtype='uint8'")

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """As JPEGImages/17.jpg, Annotations/17.xml, SegmentationClass/17.png."""
        image, objects = _layers(contents, "voc")
        mask, apart = contents.the("labels", "mask"), contents.the("labels", "instances")
        files = {f"JPEGImages/{one.id}.{contents.suffix}": contents.drawn(one, image)}
        for name, folder in ((mask, "SegmentationClass"), (apart, "SegmentationObject")):
            if name:
                files[f"{folder}/{one.id}.png"] = contents.drawn(one, name, "png", PALETTE if name == mask else None)
        seen = "".join(_object(thing, contents.class_of(one, objects, thing.label)) for thing in contents.found(one, objects))
        pixels = one.sample[image]
        depth = pixels.shape[0] if pixels.ndim == 3 else 1
        height, width = pixels.shape[-2:]
        files[f"Annotations/{one.id}.xml"] = (
            f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{one.id}.{contents.suffix}</filename>\n"
            f"  <size><width>{width}</width><height>{height}</height><depth>{depth}</depth></size>\n"
            f"  <segmented>{int(bool(mask))}</segmented>\n{seen}</annotation>\n"
        ).encode()
        return files, {}

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """The tiles of each split."""
        for folder in ("Main", "Segmentation") if contents.the("labels", "mask") else ("Main",):
            for split in splits:
                names = (f"{note['id']}\n" for note in notes() if note["split"] == split)
                yield f"ImageSets/{folder}/{split or WHOLE}.txt", names


def _object(thing: Found, name: str) -> str:
    """VOC counts pixels from 1 and means the first and the last that an object has."""
    x0, y0, x1, y1 = thing.box
    first, last = (math.floor(x0) + 1, math.floor(y0) + 1), (math.ceil(x1), math.ceil(y1))
    box = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (*first, *last), strict=True)
    )
    return (
        f"  <object><name>{escape(name)}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox>{box}</bndbox></object>\n"
    )


def _voc_colour(value: int) -> tuple[int, int, int]:
    """The colour by which VOC's pictures show a class: the value's bits dealt to red, green and blue in turn."""
    red, green, blue = (sum((value >> (3 * n + channel) & 1) << (7 - n) for n in range(3)) for channel in range(3))
    return red, green, blue


PALETTE = {value: _voc_colour(value) for value in range(256)}
