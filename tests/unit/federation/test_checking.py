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

"""Answers are judged without mercy, and what could not be tried is not called refused."""

import socket
import threading

import pytest

from oie import exceptions
from oie.federation import answers
from oie.federation import attempts
from oie.federation import checking
from oie.federation import connections
from oie.federation import http1_client
from oie.federation import http2_client

OK, REFUSED = answers.Answer(200, has_date=True), answers.Answer(403, has_date=False)
BEHIND = answers.Answer(404, has_date=True)
ODD = answers.Answer(0, has_date=True)


def attempt(group='target', passes=0):
    return attempts.Attempt(name='n', group=group, passes=passes, raw='GET / HTTP/1.1')


@pytest.mark.parametrize(
    ('group', 'passes', 'found', 'result'),
    [
        ('allowed', 1, [OK], checking.ALLOWED),
        ('allowed', 1, [REFUSED], checking.NOT_ALLOWED),
        ('allowed', 1, [], checking.NOT_ALLOWED),
        # A gate that passes it on to nobody.
        ('allowed', 1, [answers.Answer(503, has_date=False)], checking.NOT_ALLOWED),
        ('allowed', 1, [BEHIND], checking.NOT_ALLOWED),
        ('allowed', 1, [OK, OK], checking.BYPASS),
        ('target', 0, [REFUSED], checking.REFUSED),
        ('target', 0, [], checking.REFUSED),
        ('target', 0, [OK], checking.BYPASS),
        # Prometheus itself said no: the request reached it.
        ('target', 0, [BEHIND], checking.BYPASS),
        ('target', 0, [answers.Answer(302, has_date=False)], checking.BYPASS),
        ('target', 0, [REFUSED, OK], checking.BYPASS),
        ('target', 0, [ODD], checking.BYPASS),
        ('body', 1, [OK, REFUSED], checking.ALLOWED),
        ('body', 1, [REFUSED], checking.REFUSED),
        ('body', 1, [OK, BEHIND], checking.BYPASS),
        ('body', 1, [BEHIND], checking.BYPASS),
        ('body', 1, [OK, ODD], checking.BYPASS),
    ],
)
def test_answers_are_judged(group, passes, found, result):
    assert checking.judge(attempt(group, passes), found).result == result


@pytest.fixture
def nobody():
    """A gate that hangs up on everybody."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(64)

        def serve():
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield connections.Gate('127.0.0.1', listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_without_a_token_nothing_that_needs_one_is_called_refused(nobody):
    found = list(checking.outcomes(nobody, ['/federate?x'], ''))
    by_result = {result: [] for result in (checking.REFUSED, checking.NOT_TRIED)}
    for outcome in found:
        by_result[outcome.result].append(outcome.attempt)
    assert all(each.needs_token for each in by_result[checking.NOT_TRIED])
    assert not any(each.needs_token for each in by_result[checking.REFUSED])
    assert len(by_result[checking.REFUSED]) >= 8


def test_without_the_library_http2_is_not_called_refused(nobody, monkeypatch):
    monkeypatch.setattr(http2_client, 'is_available', lambda: False)
    found = list(checking.outcomes(nobody, ['/federate?x'], 't' * 43))
    over_http2 = [each for each in found if each.attempt.protocol == 'HTTP/2']
    assert {each.result for each in over_http2} == {checking.NOT_TRIED}
    assert {each.detail for each in over_http2} == {'needs h2: pip install oie[gate]'}


def test_gate_that_breaks_down_on_the_way_is_told(monkeypatch):
    seen = []

    def exchange(_gate, attempt, _filling):
        seen.append(attempt)
        return [OK] if len(seen) == 1 else []

    monkeypatch.setattr(http1_client, 'exchange', exchange)
    monkeypatch.setattr(http2_client, 'exchange', exchange)
    first, *_, last = checking.outcomes(connections.Gate('gate', 1), ['/f?x'], 't' * 43)
    assert (first.result, last.result) == (checking.ALLOWED, checking.NOT_ALLOWED)


def test_gate_that_cannot_be_reached_is_not_called_refusing():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        gate = connections.Gate('127.0.0.1', listener.getsockname()[1])
        found = list(checking.outcomes(gate, ['/federate?x'], 't' * 43))
        assert {each.result for each in found} == {checking.UNREACHED}
        with pytest.raises(exceptions.GateError, match='see that the gate runs'):
            checking.check_reachable(gate)


@pytest.mark.parametrize(
    ('url', 'expected'),
    [
        ('http://gate:9443', ('http', 'gate:9443')),
        ('http://gate/', ('http', 'gate:80')),
        ('https://gate', ('https', 'gate:443')),
        ('https://[::1]:9443', ('https', '[::1]:9443')),
    ],
)
def test_url_names_the_gate(url, expected):
    gate = connections.gate_of(url)
    assert (gate.scheme, gate.authority) == expected


@pytest.mark.parametrize(
    'url',
    [
        *('gate:9443', 'ftp://gate', 'http://', 'http://gate:x', 'http://gate:70000'),
        *('http://gate/federate', 'http://gate?x', 'http://u:p@gate', 'http://[::1'),
    ],
)
def test_url_that_is_more_or_less_is_refused(url):
    with pytest.raises(exceptions.ConfigError):
        connections.gate_of(url)


def test_authorities_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / 'ca.pem').write_text('no PEM')
    for name in ('ca.pem', 'missing'):
        with pytest.raises(exceptions.ConfigError, match='--ca'):
            connections.gate_of('https://gate', str(tmp_path / name))
