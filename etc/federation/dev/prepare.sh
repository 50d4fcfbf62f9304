#!/bin/sh
# What compose.dev.yml mounts: lists and tokens of two gates, and the file of the portal.
# It needs oie-usage-gate. Run it again for fresh tokens.
set -eu

cd "$(dirname "$0")"
rm -rf made
mkdir -p made/tokens
for site in a b; do
    printf '[gate]\ndirectory = %s/made/gate-%s\nsocket_path =\n' "$PWD" "$site" \
        > "made/gate-$site.conf"
    oie-usage-gate --config-file "made/gate-$site.conf" generate > made/params.yml
    oie-usage-gate --config-file "made/gate-$site.conf" token new portal \
        > "made/tokens/site-$site" 2> /dev/null
    # A trial: the users of the containers are others than this one.
    chmod 0644 "made/gate-$site/tokens.map" "made/tokens/site-$site"
done
# The portal as it is shipped, but without TLS.
sed -e 's/scheme: https/scheme: http/' -e '/tls_config:/d' -e '/ca_file:/d' \
    ../prometheus-portal.yml > made/prometheus.yml
