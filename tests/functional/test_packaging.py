# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""The package as an operator gets it: built, installed without a network, run from elsewhere.

What is built is a copy of the tree, new files included, with a history of its own: a build
writes into the tree it builds. Only the wheelhouse is filled over the network. All of it takes
half a minute, most of it for two virtual environments.
"""

import ast
from collections.abc import Iterator
from collections.abc import Mapping
import configparser
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.functional import exporter as exporters
from tests.functional import processes

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ('oie-exporter', 'oie-pollster', 'oie-status', 'oie-usage-gate')
SECONDS = 300
# The first test waits for all that is built, for libvirt-python from its source too.
pytestmark = pytest.mark.timeout(2 * SECONDS)
# Builds by pip's own door, so that no program to build with has to be installed.
BUILD = 'import sys; from pbr import build; print(getattr(build, sys.argv[1])(sys.argv[2]))'
LOAD = """
import importlib.metadata, oie
print(oie.__file__)
for each in importlib.metadata.distribution('oie').entry_points:
    each.load()
    print(each.group, each.name, each.value)
"""
# What a build writes about itself: checksums of the others, the commit it was made of.
ABOUT_THE_BUILD = {'RECORD', 'pbr.json'}


@dataclasses.dataclass(frozen=True)
class Built:
    """An sdist, the wheels of the git tree and of the sdist, and all that they require."""

    tree: pathlib.Path
    sdist: pathlib.Path
    wheel: pathlib.Path
    wheel_of_sdist: pathlib.Path
    house: pathlib.Path
    python: pathlib.Path


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if not (ROOT / '.git').exists():
        pytest.skip('a git checkout is needed to tell what belongs to the package')
    top = tmp_path_factory.mktemp('packaging')
    tree, house = _copy(top / 'tree'), _wheelhouse(top)
    python = _environment(top / 'builder', house, *_build_requirements())
    sdist = _build(python, 'build_sdist', tree, top / 'dist')
    shutil.unpack_archive(sdist, top / 'unpacked')
    [unpacked] = (top / 'unpacked').iterdir()
    return Built(
        tree=tree,
        sdist=sdist,
        wheel=_build(python, 'build_wheel', tree, top / 'dist'),
        wheel_of_sdist=_build(python, 'build_wheel', unpacked, top / 'again'),
        house=house,
        python=python,
    )


@pytest.fixture(scope='module')
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a virtual environment with the wheel, made without a network."""
    top = tmp_path_factory.mktemp('target') / 'venv'
    _environment(top, built.house, str(built.wheel))
    return top


@pytest.fixture
def elsewhere(
    installed: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> pathlib.Path:
    """Work in a directory that knows nothing of the checkout; return that of the programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('PYTHONPATH', raising=False)
    monkeypatch.setattr(exporters, 'BIN', installed / 'bin')
    return installed / 'bin'


@pytest.fixture
def exporter(installed: pathlib.Path, elsewhere: pathlib.Path) -> Iterator[exporters.Exporter]:
    """Return the installed exporter on the installed example of a host."""
    uri = f'test://{installed}/share/oie/oie/demo/node.xml'
    with exporters.Exporter(uri, {'conntrack': {'enabled': 'false'}}) as running:
        yield running


# --- building ---------------------------------------------------------------


def _copy(target: pathlib.Path) -> pathlib.Path:
    """Return a copy of what is or may be committed, as a git tree."""
    names = _run('git', '-C', str(ROOT), 'ls-files', '-coz', '--exclude-standard', '--deduplicate')
    for name in filter(None, names.split('\0')):
        path = target / name
        if not (ROOT / name).exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
        path.chmod((ROOT / name).stat().st_mode)
    git = ('git', '-C', str(target), '-c', 'user.name=oie', '-c', 'user.email=oie@example.org')
    _run(*git, 'init', '--quiet')
    _run(*git, 'add', '--all')
    _run(*git, 'commit', '--quiet', '--no-verify', '--message', 'all')
    # A release: pbr would call the only commit of an untagged history 0.0.0.
    _run(*git, 'tag', '--annotate', _setup()['metadata']['version'], '--message', 'release')
    return target


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    return setup


def _build_requirements() -> list[str]:
    text = (ROOT / 'pyproject.toml').read_text()
    found = re.search(r'^requires = (\[.*\])$', text, re.MULTILINE)
    assert found
    # Before 70.1 setuptools needs a package of its own for wheels.
    return [*ast.literal_eval(found[1]), 'setuptools>=70.1']


def _wheelhouse(top: pathlib.Path) -> pathlib.Path:
    """Fill a directory with wheels of all that oie requires, to run and to be built."""
    house = top / 'house'
    required = ('--requirement', str(ROOT / 'requirements.txt'), *_build_requirements())
    _run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--wheel-dir', str(house), *required)
    return house


def _environment(path: pathlib.Path, house: pathlib.Path, *required: str) -> pathlib.Path:
    """Make a virtual environment from the wheelhouse alone; return its Python."""
    _run(sys.executable, '-m', 'venv', str(path))
    python = path / 'bin/python'
    offline = ('--no-index', '--find-links', str(house), '--isolated', '--quiet', '--no-compile')
    _run(str(python), '-m', 'pip', 'install', *offline, *required)
    return python


def _build(
    python: pathlib.Path, what: str, tree: pathlib.Path, target: pathlib.Path, **more: str
) -> pathlib.Path:
    target.mkdir(exist_ok=True)
    told = _run(str(python), '-c', BUILD, what, str(target), cwd=tree, **more)
    return target / told.splitlines()[-1]


def _run(*argv: str, cwd: pathlib.Path | None = None, **more: str) -> str:
    """Return what a program says. It hears nothing of this checkout, nor of a version to take."""
    told = ('PYTHONPATH', 'PBR_VERSION', 'GIT_DIR', 'GIT_WORK_TREE')
    env = {name: value for name, value in processes.environment().items() if name not in told}
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**env, **more},
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, f'{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}'
    return done.stdout


# --- contents ---------------------------------------------------------------


def _shipped(tree: pathlib.Path) -> dict[str, bytes]:
    """Return the files below etc by their path there."""
    top = tree / 'etc'
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob('*') if path.is_file()
    }


def _in_wheel(wheel: pathlib.Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: archive.read(each) for each in archive.infolist()}


def _told(wheel: pathlib.Path) -> Mapping[str, bytes]:
    """Return what is in a wheel but for what the build tells of itself."""
    found = _in_wheel(wheel).items()
    return {
        name: content for name, content in found if pathlib.Path(name).name not in ABOUT_THE_BUILD
    }


def test_wheel_carries_all_of_etc(built: Built) -> None:
    [data] = {name.split('/')[0] for name in _in_wheel(built.wheel) if '.data/' in name}
    top = f'{data}/data/share/oie/'
    found = {
        name.removeprefix(top): content
        for name, content in _in_wheel(built.wheel).items()
        if name.startswith(top)
    }
    assert found == _shipped(built.tree)
    assert f'{data}/data/etc/oie/oie.conf.sample' in _in_wheel(built.wheel)


def test_wheel_keeps_what_may_be_executed(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        for each in archive.infolist():
            _, is_shipped, name = each.filename.partition('.data/data/share/oie/')
            if is_shipped:
                mode = (built.tree / 'etc' / name).stat().st_mode
                assert each.external_attr >> 16 & 0o111 == mode & 0o111, name


def test_sdist_carries_everything_that_is_committed(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {each.name.partition('/')[2] for each in archive if each.isfile()}
    tracked = _run('git', '-C', str(built.tree), 'ls-files', '-z').split('\0')
    # pbr leaves out what only git reads.
    assert set(filter(None, tracked)) - names <= {'.gitignore', '.gitreview'}
    assert {f'etc/{name}' for name in _shipped(built.tree)} <= names


def test_wheel_holds_no_tests_and_nothing_compiled(built: Built) -> None:
    names = _in_wheel(built.wheel)
    tops = {name.split('/')[0] for name in names}
    assert {re.sub('-.*[.]', '.', top) for top in tops} == {'oie', 'oie.data', 'oie.dist-info'}
    assert not [name for name in names if '__pycache__' in name or name.endswith('.pyc')]
    assert 'oie/py.typed' in names


def test_sdist_builds_the_same_wheel_without_git(built: Built) -> None:
    one, other = _told(built.wheel), _told(built.wheel_of_sdist)
    assert built.wheel.name == built.wheel_of_sdist.name
    assert [name for name in one if one[name] != other.get(name)] == []
    assert one.keys() == other.keys()


def test_container_gets_all_that_the_wheel_is_built_from(
    built: Built, tmp_path: pathlib.Path
) -> None:
    text = (built.tree / 'etc/container/Containerfile').read_text()
    context = tmp_path / 'context'
    context.mkdir()
    # Those of the first stage; what a later one takes over has --from.
    for line in re.findall(r'^COPY (?!--from)(.*) (?:\S+)$', text, re.MULTILINE):
        for name in line.split():
            source, target = built.tree / name, context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            elif not target.exists():
                target.write_bytes(source.read_bytes())
    wheel = _build(built.python, 'build_wheel', context, tmp_path / 'dist', PBR_VERSION='0.1.0')
    assert _told(wheel).keys() == _told(built.wheel).keys()


# --- the programs from the wheel --------------------------------------------


def test_every_entry_point_of_setup_cfg_loads(
    installed: pathlib.Path, elsewhere: pathlib.Path
) -> None:
    [where, *found] = _run(str(elsewhere / 'python'), '-c', LOAD).splitlines()
    assert where.startswith(f'{installed}/lib/')
    expected = {
        f'{group} {" ".join(part.strip() for part in line.split("=", 1))}'
        for group, lines in _setup()['entry_points'].items()
        for line in lines.strip().splitlines()
    }
    assert set(found) == expected


@pytest.mark.parametrize('name', PROGRAMS)
def test_programs_tell_what_they_are(elsewhere: pathlib.Path, name: str) -> None:
    assert '--config-file' in _run(str(elsewhere / name), '--help')
    version = _run(str(elsewhere / name), '--version').split()[-1]
    assert version == _setup()['metadata']['version']


def test_all_programs_are_tried(elsewhere: pathlib.Path) -> None:
    assert {path.name for path in elsewhere.glob('oie-*')} == set(PROGRAMS)


def test_exporter_serves_and_ends_by_signal(exporter: exporters.Exporter) -> None:
    scrape = exporter.scrape()
    assert len(scrape.instances()) == 4
    assert exporter.pollster('instances').entries
    assert exporter.stop() < 5
    with pytest.raises(processes.LabError):
        exporter.get('/metrics')


def test_pollster_reads_by_itself_where_no_exporter_runs(exporter: exporters.Exporter) -> None:
    served = {each['resource_id'] for each in exporter.pollster('instances').entries}
    exporter.stop()
    assert {each['resource_id'] for each in exporter.pollster('instances').entries} == served


def test_host_check_ends_with_the_status_of_its_worst_row(
    exporter: exporters.Exporter, elsewhere: pathlib.Path
) -> None:
    done = subprocess.run(
        (elsewhere / 'oie-status', '--json', '--config-file', exporter.config, 'host', 'check'),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
        check=False,
    )
    results = {each['check']: each['result'] for each in json.loads(done.stdout)['checks']}
    assert results['libvirt'] == 'OK'
    worst = max(
        {'OK': 0, 'INFO': 0, 'WARNING': 1, 'FAILURE': 2}[each] for each in results.values()
    )
    assert done.returncode == worst


def test_probe_of_the_container_tells_whether_the_exporter_answers(
    installed: pathlib.Path, elsewhere: pathlib.Path, exporter: exporters.Exporter
) -> None:
    probe = installed / 'share/oie/container/probe.py'
    argv = (elsewhere / 'python', probe, exporter.socket)
    assert subprocess.run(argv, check=False).returncode == 0
    exporter.stop()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, '')
    assert done.stdout.startswith(f'{exporter.socket}: ')
