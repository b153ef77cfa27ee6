#!/usr/bin/env bash
# The tests on other Pythons and other CPUs, to run by hand before a release.
#
#     tests/platforms.sh pythons     the suite with every other Python from 3.11 on that is found
#     tests/platforms.sh newest      the same with the newest of them
#     tests/platforms.sh x86         the cross-check with code for other x86-64 CPUs, as far as this one can run it
#     tests/platforms.sh arm64 ROOT  the kernels' tests and a run in an emulated ARM64 Debian, which is made in the
#                                    folder ROOT; as root, with debootstrap and qemu-user-static installed
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME="$work/cache"
own=$(python3 -c "import sys; print(tuple(sys.version_info[:2]))")
results=()
failed=0

result() { results+=("$1"); printf '\n== %s\n' "$1"; }

# Run the rest of the arguments and note under the first one how they ended.
try() {
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    result "$name: $(tail -n 1 "$work/log")"
  else
    failed=1
    tail -n 60 "$work/log"
    result "$name: FAILED"
  fi
}

# An interpreter of each minor version but that of python3, oldest first, as "3.12 /path/to/python3.12".
pythons() {
  local minor candidate
  for minor in 11 12 13 14; do
    for candidate in "python3.$minor" "$HOME"/.pyenv/versions/3."$minor".*/bin/python3."$minor"; do
      if "$candidate" -c "import sys, ensurepip; sys.exit(sys.version_info[:2] == $own)" 2>/dev/null; then
        echo "3.$minor $candidate"
        break
      fi
    done
  done
}

suite() {
  "$1" -m venv "$2" && # not on lines of their own: `try` would not notice a failure
    "$2/bin/pip" install --quiet "$project[test]" &&
    (cd "$project" && "$2/bin/pytest" -n 2 --dist loadfile -p no:cacheprovider)
}

check_for() { # NAME FEATURES
  NUMBA_CPU_NAME=$1 NUMBA_CPU_FEATURES=$2 "$work/venv/bin/bevia-fast" check --quick
}

inside() { # in the emulated root, as a Neoverse N1, which has NEON and no SVE
  QEMU_CPU=neoverse-n1 chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 QEMU_CPU=neoverse-n1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    BEVIA_FAST_CACHE_DIR=/tmp/cache "$@"
}

case "${1:-}" in
  pythons | newest)
    found=$(pythons)
    if [ "$1" = newest ]; then found=$(tail -n 1 <<<"$found"); fi
    while read -r version python; do
      if [ -n "$version" ]; then try "Python $version" suite "$python" "$work/venv-$version"; fi
    done <<<"$found"
    if [ -z "$found" ]; then result "no other Python was found"; fi
    ;;
  x86)
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet "$project"
    for cpu in x86-64 x86-64-v2 x86-64-v3 x86-64-v4 skylake alderlake znver2 znver5; do
      try "$cpu" check_for "$cpu" ""
    done
    ;;
  arm64)
    root=${2:?the folder of the emulated system}
    if [ ! -x "$root/usr/bin/python3" ]; then  # unpacked and never set up, which takes long when it is emulated
      packages=python3,python3-venv,libgomp1,ca-certificates
      debootstrap --arch=arm64 --foreign --variant=minbase --include=$packages trixie "$work/packages"
      mkdir -p "$root"
      for package in "$work"/packages/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
      mkdir -p "$root"/{proc,dev,tmp,root,etc/ssl/certs}
      cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
    rm -rf "$root/project"
    git clone --quiet "$project" "$root/project"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    for place in proc dev; do mountpoint --quiet "$root/$place" || mount --rbind "/$place" "$root/$place"; done
    inside python3 -m venv /venv
    inside /venv/bin/pip install --quiet '/project[test]'
    train='cd /tmp && rm -rf run && /venv/bin/bevia-fast train --preset laptop --steps 20 --eval-every 10 --out run'
    try "20 steps with 2 threads" inside sh -c "$train --threads 2 && cat run/sample.txt | sha256sum"
    try "20 steps with 1 thread" inside sh -c "$train --threads 1 && cat run/sample.txt | sha256sum"
    try "the cross-check" inside /venv/bin/bevia-fast check --quick
    try "the kernels' tests" inside sh -c 'cd /project && /venv/bin/pytest -q -p no:cacheprovider tests/kernels'
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac

printf '\n'
printf '%s\n' "${results[@]}"
exit "$failed"
