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

"""Foreign text made fit for a message of one line."""

_SHOWN_CHARACTERS = 60


def quoted(text: object) -> str:
    """Return a text in quotes on one line, cut where it grows too long for a message."""
    whole = str(text)
    is_long = len(whole) > _SHOWN_CHARACTERS
    return repr(f'{whole[:_SHOWN_CHARACTERS]}…' if is_long else whole)


def shown(text: object) -> str:
    """Return what quoted() gives, without the quotes."""
    return quoted(text)[1:-1]


def one_line(text: object) -> str:
    """Return a text with single spaces in place of line breaks and other white space."""
    return ' '.join(str(text).split())
