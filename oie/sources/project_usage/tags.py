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

"""What metadata says to whom an instance counts → the value of a label that every portal takes."""

# Prometheus counts bytes (label_value_length_limit), and refuses a whole scrape for one too many.
MOST_BYTES = 200


def cut(tag: object) -> str:
    """Return a tag as text of at most ``MOST_BYTES`` bytes in UTF-8, whole characters only."""
    # A lone surrogate, which JSON can hold, becomes a question mark: no file and no output has it.
    return str(tag).encode('utf-8', 'replace')[:MOST_BYTES].decode('utf-8', 'ignore')
