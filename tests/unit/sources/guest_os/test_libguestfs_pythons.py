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

import sys

import pytest

from oie.sources.guest_os import pythons


@pytest.fixture
def fake(tmp_path):
    """Return a Python that has guestfs, or has it not, or never answers."""

    def make(body):
        path = tmp_path / 'python'
        path.write_text(f'#!/bin/sh\n{body}\n')
        path.chmod(0o755)
        return str(path)

    return make


def test_named_python_is_the_only_one_tried(fake):
    path = fake('exit 0')
    assert pythons.find(path) == path
    assert pythons.find(fake('exit 1')) == ''


def test_ours_comes_before_that_of_the_system(fake, monkeypatch):
    path = fake('exit 0')
    monkeypatch.setattr(pythons, 'SYSTEM', path)
    monkeypatch.setattr(sys, 'executable', '/none')
    assert pythons.find() == path
    monkeypatch.setattr(sys, 'executable', path)
    monkeypatch.setattr(pythons, 'SYSTEM', '/none')
    assert pythons.find() == path


def test_python_that_is_missing_or_hangs_has_no_guestfs(fake, monkeypatch):
    monkeypatch.setattr(pythons, '_SECONDS', 0.2)
    assert pythons.find('/none') == ''
    assert pythons.find(fake('exec sleep 1000')) == ''
