#!/bin/sh
# Replaces the agent, and responds after a given time, so that the controller can be measured with large fleets.
# It verifies, installs and serves nothing. Files next to it: `release`, the release that it reports; `digests`, the
# digest of each release's model; `status.json`, a recorded status with placeholders; `seconds`, the durations of a
# response and of a deployment.
set -eu
cd "$(dirname "$0")"
read -r answer_s deploy_s <seconds
while [ "$1" != status ] && [ "$1" != deploy ]; do shift; done
if [ "$1" = deploy ]; then
    sleep "$deploy_s"
    echo "$2" >release
    echo "{\"schema_version\": 1, \"command\": \"deploy\", \"release\": \"$2\", \"changed\": true}"
    exit 0
fi
sleep "$answer_s"
read -r release <release
sed -e "s/@RELEASE@/$release/g; s/@DIGEST@/$(sed -n "s/^$release //p" digests)/g; s/@NOW@/$(date -u +%Y-%m-%dT%H:%M:%S+00:00)/g" status.json
