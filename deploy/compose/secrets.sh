#!/bin/sh
# Makes what compose.yaml reads from files, once: a password for the database, and the server's
# settings with that in it. What is there already is kept. Run it as root: the server's user has a
# number (65532) and no name, and nobody else is to read them.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets
if [ ! -e postgres-password ]; then
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >postgres-password
fi
if [ ! -e grantserver.toml ]; then
  printf '[database]\nurl = "postgresql://grantserver:%s@postgres/grantserver"\n' \
    "$(cat postgres-password)" >grantserver.toml
fi
chown 65532:65532 grantserver.toml
chmod 0400 grantserver.toml postgres-password
chmod 0711 .
