#!/bin/sh
# Answers in the agent's place, after as long as the agent takes; for what fleets of any size cost their controller.
# Nothing is verified, installed or served. Beside it: `release`, what it says that it runs; `digests`, of each release's
# model; `status.json`, what an agent answered, with gaps; `seconds`, for an answer and for a deployment.
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
