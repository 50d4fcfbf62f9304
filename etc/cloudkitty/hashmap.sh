#!/bin/sh
# Example prices for CloudKitty's module hashmap, one rule for each service of
# metrics-gnocchi.yml and metrics-prometheus.yml.
# Written by tools/generate.py; do not edit it in the source tree.
#
# Put your own prices in. RATING is the command, for example RATING=cloudkitty. Rules
# hold from now on, or from START, a later time (ISO 8601, UTC): what was used before
# has no price. Run it once: a second run stops at the first service.
set -eu
RATING=${RATING:-openstack rating}

service() {
    $RATING hashmap service create "$1" -f value -c 'Service ID'
}

field() {
    $RATING hashmap field create "$1" "$2" -f value -c 'Field ID'
}

mapping() {
    $RATING hashmap mapping create --type flat ${START:+--start "$START"} "$@"
}

$RATING module enable hashmap

# vcpu_hours, per vCPU*h
id=$(service vcpu_hours)
mapping --service-id "$id" 0.01
# memory_hours, per GiB*h
id=$(service memory_hours)
mapping --service-id "$id" 0.005
# disk_read, per GiB
id=$(service disk_read)
mapping --service-id "$id" 0.001
# disk_write, per GiB
id=$(service disk_write)
mapping --service-id "$id" 0.002
# traffic_incoming, per GiB
id=$(service traffic_incoming)
mapping --service-id "$id" 0
# traffic_outgoing, per GiB
id=$(service traffic_outgoing)
mapping --service-id "$id" 0.02
# licence_hours, per unit*h
id=$(service licence_hours)
id=$(field "$id" os_distro)
mapping --field-id "$id" --value windows 0.05
mapping --field-id "$id" --value rhel 0.04
