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

"""Lengths of time as people write them into seconds, and back."""

import decimal
import re

from oie.config import messages

_UNITS = {
    'd': decimal.Decimal(86400),
    'h': decimal.Decimal(3600),
    'm': decimal.Decimal(60),
    's': decimal.Decimal(1),
    'ms': decimal.Decimal('0.001'),
}
_NUMBER = r'([0-9]{1,15}(?:\.[0-9]{1,15})?)'
_PLAIN = re.compile(_NUMBER)
_WITH_UNITS = re.compile(''.join(f'(?:{_NUMBER}{unit})?' for unit in _UNITS))


def parse(text: str) -> float:
    """Return the seconds of ``1h30m``, ``10s``, ``500ms`` or of a plain number.

    Units come in the order d, h, m, s, ms, each at most once.

    :raises ValueError: the text is no duration
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    match = _WITH_UNITS.fullmatch(text)
    if match is None or not text:
        raise ValueError(
            f'{messages.quoted(text)} is not a duration; write for example 10s, 1m30s, 500ms'
        )
    pieces = zip(match.groups(), _UNITS.values(), strict=True)
    return float(sum(decimal.Decimal(number) * unit for number, unit in pieces if number))


def text_of(seconds: float) -> str:
    """Return seconds as one writes them: ``1h30m``, ``2.5s``, ``500ms``."""
    rest = decimal.Decimal(repr(float(seconds)))
    if 0 < rest < 1:
        return f'{_plain(rest * 1000)}ms'
    text = ''
    for unit in ('d', 'h', 'm'):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            text += f'{_plain(count)}{unit}'
    return f'{text}{_plain(rest)}s' if rest or not text else text


def _plain(number: decimal.Decimal) -> str:
    text = f'{number:f}'
    return text.rstrip('0').rstrip('.') if '.' in text else text
