#!/bin/sh
# Makes in Gnocchi what gnocchi_resources.yaml needs: archive policies, types of
# resources, and attributes of the type that Ceilometer made (ceilometer-upgrade).
# Written by tools/generate.py; do not edit it in the source tree.
#
# Run it with the rights of an administrator; a second run changes nothing. METRIC is
# the command, for example METRIC='gnocchi --os-auth-plugin gnocchi-basic --user admin'.
set -eu
METRIC=${METRIC:-openstack metric}

policy() {
    name=$1
    shift
    $METRIC archive-policy show "$name" >/dev/null 2>&1 ||
        $METRIC archive-policy create --back-window 0 "$@" "$name"
}

# An older installation may lack a part of them, so only those that are missing are added.
attributes() {
    type=$1
    shift
    known=$($METRIC resource-type show "$type" -f json 2>/dev/null) || known=
    missing=
    for name; do
        case $known in
        *'attributes/'"$name"'"'*) ;;
        *) missing="$missing --attribute $name:string:false:max_length=255" ;;
        esac
    done
    if [ -z "$known" ]; then
        $METRIC resource-type create $missing "$type"
    elif [ -n "$missing" ]; then
        $METRIC resource-type update $missing "$type"
    fi
}

policy oie-billing \
    --definition 'granularity:5 minutes,timespan:30 days' --definition 'granularity:1 hour,timespan:400 days' \
    --aggregation-method mean --aggregation-method max --aggregation-method last --aggregation-method sum
policy oie-billing-rate \
    --definition 'granularity:5 minutes,timespan:30 days' --definition 'granularity:1 hour,timespan:400 days' \
    --aggregation-method mean --aggregation-method max --aggregation-method last --aggregation-method sum --aggregation-method rate:mean --aggregation-method rate:sum
attributes instance \
    os_family os_distro os_info os_version os_version_major os_version_minor os_product_name os_product_variant os_source
attributes oie_fixed_ip \
    instance_id host image_ref display_name flavor_id flavor_name ip family port_id
attributes oie_threat_list \
    instance_id host image_ref display_name flavor_id flavor_name threat_list direction
attributes oie_usage \
    instance_id host image_ref display_name flavor_id flavor_name os_family os_distro os_info os_version os_version_major os_version_minor os_product_name os_product_variant os_source
attributes oie_router \
    router_id host netns devices
