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

"""Another namespace is entered by a thread of its own, or not at all."""

import os
import pathlib
import threading

import pytest

from oie import exceptions
from oie.sources import namespaces
from tests import held


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pretend to enter; give the threads that did."""
    threads: list[str] = []

    def setns(namespace: int) -> None:
        os.fstat(namespace)
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(namespaces, 'setns', setns)
    return threads


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    file = tmp_path / 'qrouter-1'
    file.touch()
    return str(file)


def test_value_comes_from_a_thread_that_has_ended(entered: list[str], path: str) -> None:
    assert namespaces.run_in(path, lambda: threading.current_thread().name) == 'oie-netns'
    assert entered == ['oie-netns']
    assert 'oie-netns' not in {thread.name for thread in threading.enumerate()}


def test_error_of_the_function_comes_out(entered: list[str], path: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        namespaces.run_in(path, fail)


def test_file_of_the_namespace_is_closed(entered: list[str], path: str) -> None:
    with held.nothing_more():
        namespaces.run_in(path, lambda: None)


def test_missing_namespace_has_vanished(path: str) -> None:
    os.unlink(path)

    with pytest.raises(exceptions.SourceError, match='qrouter-1: .* has vanished'):
        namespaces.run_in(path, lambda: None)


def test_file_that_is_no_namespace_has_vanished(path: str) -> None:
    with pytest.raises(exceptions.SourceError, match='qrouter-1: .* has vanished'):
        namespaces.run_in(path, lambda: None)


def test_pipe_without_a_writer_makes_nobody_wait(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)

    with pytest.raises(exceptions.SourceError, match='has vanished'):
        namespaces.run_in(path, lambda: None)


def test_missing_right_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def setns(namespace: int) -> None:
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(namespaces, 'setns', setns)

    with pytest.raises(exceptions.SourceError, match='CAP_SYS_ADMIN'):
        namespaces.run_in(path, lambda: None)


def test_other_failures_are_told(path: str) -> None:
    with pytest.raises(exceptions.SourceError, match='Not a directory'):
        namespaces.run_in(f'{path}/below', lambda: None)


def test_no_thread_to_be_had(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', start)

    with pytest.raises(exceptions.SourceError, match="can't start new thread"):
        namespaces.run_in(path, lambda: None)


def test_files_match_by_name_in_order(tmp_path: pathlib.Path) -> None:
    for name in ('qrouter-2', 'snat-1', 'qrouter-1', 'qdhcp-1'):
        (tmp_path / name).touch()

    found = namespaces.matching(['qrouter-*', 'snat-*'], str(tmp_path))

    assert [os.path.basename(path) for path in found] == ['qrouter-1', 'qrouter-2', 'snat-1']
