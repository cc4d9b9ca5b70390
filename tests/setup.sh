#!/bin/sh
# Installs what `make try` and `make e2e` run in their pods (Debian), and with the word `suites` what the conformance
# suites of `make e2e` need; starts no service, and is quick when all is there.
set -eu

# program:package
wanted='
    cc:build-essential
    ip:iproute2
    iptables-nft-restore:iptables
    ip6tables-nft-restore:iptables
    nft:nftables
    nsenter:util-linux
    setpriv:util-linux
    curl:curl
    openssl:openssl
    xz:xz-utils
    tcpdump:tcpdump
    nginx:nginx-light
    mariadbd:mariadb-server
    mariadb:mariadb-client
    psql:postgresql-client
    h2load:nghttp2-client
    haproxy:haproxy
    node:nodejs
    promtool:prometheus
'

PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
missing=
for entry in $wanted; do
    command -v "${entry%%:*}" >/dev/null 2>&1 || missing="$missing ${entry#*:}"
done
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
/usr/bin/python3 -c 'import grpc' >/dev/null 2>&1 || missing="$missing python3 python3-grpcio"
if [ "${1-}" = suites ]; then
    command -v go >/dev/null 2>&1 || missing="$missing golang-go"
    /usr/bin/python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
    /usr/bin/python3 -c 'import websockets' >/dev/null 2>&1 || missing="$missing python3-websockets"
fi
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
[ -n "$missing" ] || exit 0
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')

if [ "$(id -u)" -ne 0 ]; then
    echo "Not installed: $missing" >&2
    echo "Run this once: sudo apt-get install --no-install-recommends -y $missing" >&2
    exit 69
fi

# Packages ask this file whether they may start their services: none may, while this script runs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
elif ! { "$policy" x start >/dev/null 2>&1; [ $? -eq 101 ]; }; then
    echo "$policy exists and lets services start: move it away, or install by hand: $missing" >&2
    exit 69
fi

echo "Installing: $missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -o DPkg::Lock::Timeout=300 --no-install-recommends -y -qq $missing >&2
