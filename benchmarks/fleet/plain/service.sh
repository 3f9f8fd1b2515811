#!/bin/sh
# Starts or restarts server.py, and returns when it listens, as systemd does for a service with Type=notify.
set -eu
cd "$(dirname "$0")"
if [ "$1" = restart ] && [ -e pid ]; then
    kill "$(cat pid)"
    tail --pid="$(cat pid)" -f /dev/null
fi
rm -f ready && mkfifo ready
setsid PYTHON server.py >ready 2>log </dev/null &
echo $! >pid
read -r _ <ready
