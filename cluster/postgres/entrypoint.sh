#!/bin/sh
# Makes the database on the first start, then becomes the server. Takes the official image's variables: POSTGRES_USER,
# POSTGRES_PASSWORD, POSTGRES_DB (or the first three with _FILE), POSTGRES_INITDB_ARGS and PGDATA, and runs the .sql files of
# /docker-entrypoint-initdb.d in the new database.
set -eu

# The value of a variable, or the content of the file that its _FILE twin names, or a default.
setting() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$value" ] && [ -n "$file" ]; then
        echo "Set $1 or $1_FILE, not both." >&2
        exit 1
    fi
    if [ -n "$file" ]; then
        value=$(cat "$file")
    fi
    echo "${value:-$2}"
}

make_database() {
    user=$(setting POSTGRES_USER postgres)
    password=$(setting POSTGRES_PASSWORD "")
    database=$(setting POSTGRES_DB "$user")
    if [ -z "$password" ]; then
        echo "POSTGRES_PASSWORD is empty: the database would be open to everyone who reaches it." >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    # Into a folder beside it first: a start that is cut short leaves no half-made database behind.
    unfinished="$PGDATA/.unfinished"
    rm -rf "$unfinished"
    mkdir -m 0700 "$unfinished"
    echo "$password" > "/tmp/password.$$"
    # shellcheck disable=SC2086 # several arguments
    initdb --pgdata="$unfinished" --username="$user" --pwfile="/tmp/password.$$" \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    rm "/tmp/password.$$"
    echo "listen_addresses = '*'" >> "$unfinished/postgresql.conf"
    echo "host all all all scram-sha-256" >> "$unfinished/pg_hba.conf"
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\";" | postgres --single -D "$unfinished" postgres > /dev/null
    fi
    # A statement for each line, which is how a single-user server reads.
    for script in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -e "$script" ] || postgres --single -D "$unfinished" "$database" < "$script" > /dev/null
    done
    # PG_VERSION says that the database is whole, so it comes last.
    for entry in "$unfinished"/* ; do
        [ "${entry##*/}" = PG_VERSION ] || { rm -rf "$PGDATA/${entry##*/}"; mv "$entry" "$PGDATA/"; }
    done
    mv "$unfinished/PG_VERSION" "$PGDATA/"
    rmdir "$unfinished"
    chmod 0700 "$PGDATA" 2> /dev/null || true # a mounted volume's own folder belongs to root
}

case "${1:-postgres}" in
postgres | -*)
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        make_database
    fi
    if [ "${1:-}" = postgres ]; then
        shift
    fi
    exec postgres "$@"
    ;;
*)
    exec "$@"
    ;;
esac
