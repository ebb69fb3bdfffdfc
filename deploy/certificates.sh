#!/bin/sh
# Makes the certificates of a Paceline installation: one private authority, and what it signs.
#
#   sh deploy/certificates.sh FOLDER server NAME HOST...   for what others connect to: verifier, broker, orchestrator
#   sh deploy/certificates.sh FOLDER client NAME           for what only connects: edges, orchestrator
#
# NAME is the common name: tenant at a verifier, user at the broker, where it must be the --edge-id or --verifier-id.
# HOST is every name and IP address that others use to reach it. The authority is made with the first certificate.
# DAYS=90 and AUTHORITY_DAYS=730 in the environment say for how long they are good. Nothing is ever overwritten.
set -eu
umask 077

stop() { echo "certificates.sh: $*" >&2; exit 2; }
quietly() { said=$("$@" 2>&1) || stop "$1 $2 failed: $said"; }

usage="expected FOLDER server NAME HOST... or FOLDER client NAME"
[ $# -ge 3 ] || stop "got $# arguments, $usage"
folder=$1 role=$2 name=$3
shift 3
days=${DAYS:-90} authority_days=${AUTHORITY_DAYS:-730}

case $name in
  *[!A-Za-z0-9._-]* | .* | -* | "" | ca) stop "name: got '$name', expected letters, digits, '.', '_' and '-', and not 'ca'" ;;
esac
[ ${#name} -le 64 ] || stop "name: got ${#name} characters, expected at most 64"
case $days$authority_days in
  *[!0-9]*) stop "DAYS, AUTHORITY_DAYS: got '$days', '$authority_days', expected whole numbers" ;;
esac
command -v openssl >/dev/null || stop "the command openssl is not there; install OpenSSL 1.1.1 or newer"

names=
for host in "$@"; do
  case $host in
    *[!A-Za-z0-9.:*-]* | "") stop "host: got '$host', expected a host name or an IP address, without a port" ;;
    *:*:*) kind=IP ;;
    *:*) stop "host: got '$host', expected it without a port" ;;
    *[!0-9.]*) kind=DNS ;;
    *) kind=IP ;;
  esac
  names=$names${names:+,}$kind:$host
done

# What connects to a broker is a client there, even if it is a server for others.
case $role in
  server) [ -n "$names" ] || stop "host: got none, expected every name and address that others use to reach $name"
          purposes=serverAuth,clientAuth ;;
  client) [ -z "$names" ] || stop "host: got '$*', expected none for a client"
          purposes=clientAuth ;;
  *) stop "role: got '$role', $usage" ;;
esac

mkdir -p "$folder"
cd "$folder"
for file in "$name.pem" "$name.key"; do
  [ ! -e "$file" ] || stop "$folder/$file is there already; move it away first, or choose another name"
done

curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
if [ ! -e ca.pem ] && [ ! -e ca.key ]; then
  # shellcheck disable=SC2086 # the words of $curve are arguments
  quietly openssl req -x509 $curve -sha256 -days "$authority_days" -subj "/CN=Paceline authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout ca.key -out ca.pem
  echo "made $folder/ca.pem and $folder/ca.key, the authority, good for $authority_days days"
fi
if [ ! -e ca.pem ] || [ ! -e ca.key ]; then
  stop "$folder holds only one of ca.pem and ca.key; without both nothing can be signed"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  echo "basicConstraints=critical,CA:FALSE"
  echo "keyUsage=critical,digitalSignature"
  echo "extendedKeyUsage=$purposes"
  [ -z "$names" ] || echo "subjectAltName=$names"
} >"$work/extensions"
# shellcheck disable=SC2086
quietly openssl req -new $curve -sha256 -subj "/CN=$name" -keyout "$work/key" -out "$work/request"
quietly openssl x509 -req -sha256 -in "$work/request" -CA ca.pem -CAkey ca.key -days "$days" \
  -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/extensions" -out "$work/certificate"
quietly openssl verify -CAfile ca.pem "$work/certificate"
mv "$work/key" "$name.key"
mv "$work/certificate" "$name.pem"
chmod 644 ca.pem "$name.pem"

echo "made $folder/$name.pem and $folder/$name.key, a $role certificate${names:+ for $names}, good for $days days"
echo "copy to the machine of $name: ca.pem $name.pem $name.key"
echo "keep here, and off the network: ca.key"
