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

"""What the projects of a cloud have used: asked of Nova and Keystone, or of a file for trials.

``cloud.Cloud`` and ``dummy.DummyCloud`` answer alike; ``weights.Weights`` and
``start_dates.StartDate`` bring what counts how much, and from when on.
"""
