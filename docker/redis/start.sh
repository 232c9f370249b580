#!/bin/sh
# Starts redis-server on redis.conf with one user, `conveyor`, who may do what users.acl says and has the password
# REDIS_PASSWORD. Further arguments are redis-server's.
set -eu
here=$(dirname "$0")
users=$(mktemp)

if [ -n "${REDIS_PASSWORD:-}" ]; then
    password="#$(printf %s "$REDIS_PASSWORD" | sha256sum | cut -d ' ' -f 1)"
else
    echo "REDIS_PASSWORD is not set: whoever reaches this Redis reaches the sessions" >&2
    password=nopass
fi
{
    echo "user default off"
    echo "user conveyor on $password $(sed 's/#.*//' "$here/users.acl" | tr -s ' \n' '  ')"
} > "$users"
exec redis-server "$here/redis.conf" --aclfile "$users" "$@"
