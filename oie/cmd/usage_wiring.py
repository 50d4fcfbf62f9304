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

"""From the options of ``[usage]`` to what reads the usage of projects."""

from typing import Any

from oie.ledger import project_store
from oie.project_usage import parts
from oie.project_usage import reader as readers
from oie.project_usage import shown
from oie.sources.project_usage import cloud
from oie.sources.project_usage import dummy
from oie.sources.project_usage import start_dates
from oie.sources.project_usage import weights

_MICROSECOND = 10**6


def reader(options: Any) -> readers.ProjectUsageReader:
    """Return the reader; nothing is opened and nobody is asked before its first cycle."""
    return readers.ProjectUsageReader(
        source(options),
        project_store.ProjectStore(options.path, keep_us=int(options.keep * _MICROSECOND)),
        weights.Weights(
            options.weights_file or options.weights_url,
            weights.Set(0, options.vcpu_weights, options.memory_weights),
            options.memory_unit,
            every=options.weights_every,
            timeout=options.timeout,
        ),
        start_dates.StartDate(options.start_date, options.start_date_url, timeout=options.timeout),
        readers.Settings(interval=options.interval, deadline=options.deadline),
        shown.Shown(
            shown.Settings(
                keep=options.keep_projects,
                memory_unit=options.memory_unit,
                domains=options.domains,
                domain_id=options.domain_id,
            )
        ),
    )


def source(options: Any) -> parts.Source:
    """Return the cloud that is asked, or the file in its place."""
    if options.dummy_file:
        return dummy.DummyCloud(
            options.dummy_file,
            tagged_project_id=options.simple_vm_project_id,
            tag=options.simple_vm_tag,
            domains=options.domains,
            domain_id=options.domain_id,
        )
    return cloud.Cloud(
        cloud.Settings(
            cloud=options.cloud,
            timeout=options.timeout,
            page_size=options.page_size,
            domains=options.domains,
            domain_id=options.domain_id,
            tagged_project_id=options.simple_vm_project_id,
            tag=options.simple_vm_tag,
        )
    )
