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

"""Weights by amount: the smallest amount that is not exceeded gives the weight.

Exact decimals: a bill must not depend on how a machine rounds.
"""

from collections.abc import Iterable
import decimal

from oie.config import messages

Table = tuple[tuple[decimal.Decimal, decimal.Decimal], ...]

# A weight is kept as a whole number of these parts.
PLACES = 12
ONE = 10**PLACES
_MOST = decimal.Decimal(10**12)
_MOST_DIGITS = 40


def pair(text: str) -> tuple[decimal.Decimal, decimal.Decimal]:
    """Return amount and weight of ``amount:weight``.

    :raises ValueError: it is none
    """
    amount, _, weight = (part.strip(' \'"') for part in text.partition(':'))
    if not (amount and weight):
        raise ValueError(
            f'{messages.quoted(text.strip())} is not amount:weight; write for example 4:1,16:1.5'
        )
    return number(amount), number(weight)


def number(value: object) -> decimal.Decimal:
    """Return the exact decimal of a text or a number.

    :raises ValueError: none, negative, too large, or with too many places
    """
    if isinstance(value, bool) or not isinstance(value, int | str | decimal.Decimal):
        raise ValueError(f'{messages.quoted(value)} is not a number')
    try:
        found = decimal.Decimal(value)
    except decimal.InvalidOperation as exc:
        raise ValueError(f'{messages.quoted(value)} is not a number') from exc
    if not found.is_finite() or not 0 <= found <= _MOST:
        raise ValueError(f'{messages.quoted(value)} is not between 0 and {_MOST}')
    _, digits, exponent = found.as_tuple()
    if len(digits) > _MOST_DIGITS or (isinstance(exponent, int) and exponent < -PLACES):
        raise ValueError(f'{messages.quoted(value)} has more than {PLACES} decimal places')
    return found


def checked(pairs: Iterable[tuple[decimal.Decimal, decimal.Decimal]]) -> Table:
    """Return the table, the smallest amount first.

    :raises ValueError: an amount comes twice
    """
    found: dict[decimal.Decimal, decimal.Decimal] = {}
    for amount, weight in pairs:
        if amount in found:
            raise ValueError(f'the amount {amount} is there twice')
        found[amount] = weight
    return tuple(sorted(found.items()))


def parts_of(table: Table, amount: int | decimal.Decimal) -> int:
    """Return the weight of an amount in parts of ``ONE``; without any weights it is one.

    Of amounts above the largest one the weight is that of the largest.
    """
    weights = [weight for most, weight in table if amount <= most]
    largest = table[-1][1] if table else decimal.Decimal(1)
    return int((weights[0] if weights else largest) * ONE)
