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


"""A real Chromium without a window, led over the pipe of its DevTools protocol.

with chromium.Browser() as browser:
    page = browser.open(url, width=390, scheme='dark')
    assert page.evaluate('document.title') == 'cmp1'
"""

from collections.abc import Mapping
import dataclasses
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any

from tests.functional import processes

FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--hide-scrollbars',
    '--remote-debugging-pipe',
)
SECONDS = 30.0
# Pictures come as base64 in one message.
_CHUNK = 1 << 20


def what_is_missing() -> str:
    """Return which program this machine lacks, empty when none."""
    return '' if processes.find_program('chromium') else 'no chromium here; see bindep.txt'


class Browser:
    """One browser with an empty profile of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = pathlib.Path()
        self._input = self._output = -1
        self._received = b''
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> 'Browser':
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix='oiet-chromium-'))
        their_input, self._input = _pipe()
        self._output, their_output = _pipe()
        with (self._directory / 'log').open('wb') as log:
            self._process = subprocess.Popen(
                ('chromium', *FLAGS, f'--user-data-dir={self._directory}/profile', 'about:blank'),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(3, 4),
                # The protocol wants these two numbers; ours were made far above them.
                preexec_fn=lambda: (os.dup2(their_input, 3), os.dup2(their_output, 4)) and None,
                start_new_session=True,
                env={**processes.environment(), 'HOME': str(self._directory)},
            )
        os.close(their_input)
        os.close(their_output)
        processes.end_later(self, self.close)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it: it goes when its pipe does."""
        for end in (self._input, self._output):
            os.close(end)
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
        processes.ended(self)

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, scheme: str = 'light'
    ) -> 'Page':
        """Return a page once it is loaded.

        :param scheme: of colours, which the reader prefers: ``light`` or ``dark``
        """
        target = self.call('Target.createTarget', {'url': 'about:blank'})['targetId']
        given = {'targetId': target, 'flatten': True}
        page = Page(self, self.call('Target.attachToTarget', given)['sessionId'])
        for domain in ('Page', 'Log', 'Runtime', 'Network'):
            page.call(f'{domain}.enable')
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        page.call('Emulation.setDeviceMetricsOverride', size)
        media = [{'name': 'prefers-color-scheme', 'value': scheme}]
        page.call('Emulation.setEmulatedMedia', {'features': media})
        page.call('Page.navigate', {'url': url})
        page.wait_for('Page.loadEventFired')
        return page

    def call(
        self, method: str, parameters: Mapping[str, Any] | None = None, session: str = ''
    ) -> dict[str, Any]:
        """Return the answer to one command.

        :raises LabError: it is refused, or none comes
        """
        self._number += 1
        number = self._number
        message: dict[str, Any] = {'id': number, 'method': method, 'params': parameters or {}}
        if session:
            message['sessionId'] = session
        os.write(self._input, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._next()
            if answer.get('id') == number:
                break
            self._events.append(answer)
        if 'error' in answer:
            raise processes.LabError(f'{method}: {answer["error"]}')
        return dict(answer['result'])

    def events(self, method: str, session: str) -> list[dict[str, Any]]:
        """Return what happened so far in a page, as the parameters of such events."""
        return [
            event['params']
            for event in self._events
            if (event.get('method'), event.get('sessionId')) == (method, session)
        ]

    def receive(self) -> None:
        """Wait for one more event."""
        self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b'\0' not in self._received:
            ready, _, _ = select.select([self._output], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(self._output, _CHUNK) if ready else b''
            if not chunk:
                log = (self._directory / 'log').read_text(encoding='utf-8', errors='replace')
                raise processes.LabError(f'chromium says nothing: {log[-2000:]}')
            self._received += chunk
        whole, _, self._received = self._received.partition(b'\0')
        return dict(json.loads(whole))


@dataclasses.dataclass(frozen=True)
class Page:
    """One page in a browser."""

    browser: Browser
    session: str

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.browser.call(method, parameters, self.session)

    def wait_for(self, method: str) -> None:
        """Wait until there was such an event."""
        while not self.browser.events(method, self.session):
            self.browser.receive()

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, whatever the page's own policy forbids."""
        given = {'expression': script, 'returnByValue': True}
        answer = self.call('Runtime.evaluate', given)
        if 'exceptionDetails' in answer:
            raise processes.LabError(f'{script}: {answer["exceptionDetails"]}')
        return answer['result'].get('value')

    def complaints(self) -> list[str]:
        """Return what the console of the browser shows: refused styles, failed loads, errors."""
        logged = self.browser.events('Log.entryAdded', self.session)
        thrown = self.browser.events('Runtime.exceptionThrown', self.session)
        said = self.browser.events('Runtime.consoleAPICalled', self.session)
        return [str(event) for event in (*logged, *thrown, *said)]

    def requests(self) -> list[str]:
        """Return the addresses of all that the page has asked for."""
        events = self.browser.events('Network.requestWillBeSent', self.session)
        return [event['request']['url'] for event in events]

    def accessible(self, role: str) -> list[str]:
        """Return the names under which a screen reader announces what has this role."""
        nodes = self.call('Accessibility.getFullAXTree')['nodes']
        return [
            node.get('name', {}).get('value', '')
            for node in nodes
            if not node['ignored'] and node.get('role', {}).get('value') == role
        ]


def _pipe() -> tuple[int, int]:
    """Return both ends of a pipe, far from the numbers that the protocol wants."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
