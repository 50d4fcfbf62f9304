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

"""oie-pollster: one JSON list for Ceilometer, asked of the running exporter.

Ceilometer runs this by ``subprocess.getoutput``: stderr is mixed into the
answer, the exit status ignored, and nothing limits the time. So: exactly one
JSON document on stdout, or one plain sentence; nothing on stderr; our own
deadline. This path imports next to nothing, because it runs for every meter.
"""

import os
import signal
import socket
import sys

DEADLINE = 8.0
DEFAULT_SOCKET = '/run/oie/oie.sock'
DEFAULT_FILE = '/etc/oie/oie.conf'
DEFAULT_DIRECTORY = '/etc/oie/oie.conf.d'
# Nobody who is not us answers with more.
LARGEST_ANSWER = 64 * 2**20


class _Unusual(Exception):
    """What the short path does not understand; the long one shall decide."""


class _UnknownList(Exception):
    """The exporter does not know this list; perhaps we do."""


def main() -> int:
    """Print the list that the command line names; return the exit status."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    _silence_stderr()
    try:
        answer = ask(sys.argv[1:])
        if answer is None:
            from oie.cmd import pollster_direct

            status, text = pollster_direct.collect(sys.argv[1:])
            _print(text, status)
            # A libvirt call that hangs holds a thread that nothing can end.
            os._exit(status)
        return _print(*answer)
    except Exception as exc:
        return _print(*_sentence(f'oie-pollster failed: {exc!r}'))


def ask(argv: list[str]) -> tuple[bytes, int] | None:
    """Return the answer of the running exporter and our exit status.

    None when there is no exporter, or the command line needs the long path.
    """
    try:
        name, files = _parse(argv)
        path = _socket_path(files)
    except (_Unusual, OSError, ValueError):
        return None
    return ask_exporter(path, name)


def ask_exporter(path: str, name: str) -> tuple[bytes, int] | None:
    """Return the answer of the exporter on this socket and our exit status.

    None when there is no exporter, or one that does not know this list.
    """
    if not path:
        return None
    try:
        return _request(path, name)
    except (FileNotFoundError, ConnectionRefusedError, _UnknownList):
        return None
    except PermissionError:
        return _sentence(f'oie-exporter does not let us use {path}: see [exporter] socket_group')
    except OSError as exc:
        return _sentence(f'oie-exporter did not answer on {path}: {exc}')


def _parse(argv: list[str]) -> tuple[str, list[str]]:
    """Return the pollster's name and the named configuration files."""
    names, files, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == '--config-file' and rest:
            files.append(rest.pop(0))
        elif word.startswith('--config-file='):
            files.append(word.partition('=')[2])
        elif word.isascii() and word.isidentifier():
            names.append(word)
        else:
            raise _Unusual(word)
    if len(names) != 1:
        raise _Unusual(argv)
    return names[0], files or _default_files()


def _default_files() -> list[str]:
    files = [DEFAULT_FILE]
    try:
        found = sorted(os.listdir(DEFAULT_DIRECTORY))
    except OSError:
        found = []
    files += [f'{DEFAULT_DIRECTORY}/{name}' for name in found if name.endswith('.conf')]
    return [path for path in files if os.path.exists(path)]


def _socket_path(files: list[str]) -> str:
    """Return ``[exporter] socket_path``, the last one of all files.

    :raises _Unusual: the value needs oslo.config to be understood
    """
    path = DEFAULT_SOCKET
    for file in files:
        section, is_ours = '', False
        with open(file, encoding='utf-8') as lines:
            for line in lines:
                if is_ours and line[0].isspace() and line.strip():
                    raise _Unusual('a value of several lines')
                name, equals, value = line.partition('=')
                is_ours = section == '[exporter]' and line.startswith('socket_path')
                if line.startswith('['):
                    section = line.strip()
                elif is_ours:
                    path = value.strip()
                    if not equals or name.rstrip() != 'socket_path' or _is_unusual(path):
                        raise _Unusual(line)
    return path


def _is_unusual(value: str) -> bool:
    return any(character in value for character in '$\\"\'') or not value.isprintable()


def _request(path: str, name: str) -> tuple[bytes, int]:
    with socket.socket(socket.AF_UNIX) as connection:
        # While it blocks, a full queue of the exporter makes us wait, not fail.
        connection.connect(path)
        connection.settimeout(DEADLINE)
        request = f'GET /pollsters/{name} HTTP/1.1\r\nHost: oie\r\nConnection: close\r\n\r\n'
        connection.sendall(request.encode('ascii'))
        chunks, size = [], 0
        while (chunk := connection.recv(2**20)) and size <= LARGEST_ANSWER:
            chunks.append(chunk)
            size += len(chunk)
    return _read_answer(b''.join(chunks), name)


def _read_answer(answer: bytes, name: str) -> tuple[bytes, int]:
    head, separator, body = answer.partition(b'\r\n\r\n')
    lines = head.lower().split(b'\r\n')
    words = lines[0].split()
    lengths = [
        line.partition(b':')[2].strip() for line in lines if line[:15] == b'content-length:'
    ]
    if not separator or len(words) < 2 or lengths != [b'%d' % len(body)]:
        return _sentence('oie-exporter broke off its answer')
    if words[1] == b'200':
        return body, 0
    if words[1] == b'404':
        raise _UnknownList(name)
    return _sentence(f'oie-exporter refuses: {body.decode(errors="replace").strip()}')


def _sentence(text: str) -> tuple[bytes, int]:
    """Return a failure as one line that is certainly no JSON."""
    return ' '.join(text.split()).encode('ascii', 'replace') + b'\n', 1


def _print(answer: bytes, status: int) -> int:
    while answer:
        answer = answer[os.write(1, answer) :]
    return status


def _too_late(*_: object) -> None:
    os.write(1, b'oie-pollster has no answer after %d seconds\n' % DEADLINE)
    os._exit(1)


def _silence_stderr() -> None:
    """Libraries may warn there; Ceilometer would take it for a part of the answer."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


if __name__ == '__main__':
    sys.exit(main())
