# shellcheck shell=bash
# What the scripts share; sourced, never run. Functions print to stderr, except where they say so.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export ROOT

# say TEXT... : one line for the person who watches.
say() {
  printf '%s\n' "$*" >&2
}

# die TEXT... : one sentence, and exit status 1.
die() {
  say "${0##*/}: $*"
  exit 1
}

is_root() {
  [ "$(id -u)" -eq 0 ]
}

is_debian() {
  [ -r /etc/debian_version ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null
}

# need_tool COMMAND PACKAGE WHY : COMMAND is there afterwards. Root on Debian has it installed;
# anyone else is told which package to install.
need_tool() {
  local tool=$1 package=$2 why=$3
  has_tool "$tool" && return
  if is_root && is_debian; then
    say "installing $package ($tool: $why)"
    apt_install "$package"
    has_tool "$tool" || die "$package is installed, but there is still no $tool"
  else
    die "no '$tool' here, and $why: install the package '$package' and start again"
  fi
}

# The folders that an ordinary user's PATH leaves out hold mkfs.xfs and its like.
has_tool() {
  PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null
}

# apt_install PACKAGE... : the package lists are fetched at most once a run, and only when the
# ones at hand (a fresh machine has none) do not lead to the package.
apt_install() {
  local log
  log=$(mktemp "${TMPDIR:-/tmp}/kidafs-apt.XXXXXX")
  if ! apt_once "$@" >"$log" 2>&1; then
    if ! { apt-get -q update && apt_once "$@"; } >>"$log" 2>&1; then
      tail -n 5 "$log" >&2
      rm -f "$log"
      die "apt-get could not install $* (its last lines are above)"
    fi
  fi
  rm -f "$log"
}

apt_once() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" </dev/null
}

# need_fuse : a mount can be made: by root with the device, by anyone else with fusermount3, which
# opens the device with rights of its own.
need_fuse() {
  [ -e /dev/fuse ] ||
    die "no /dev/fuse here: load the kernel module (modprobe fuse), or give the container the device (--device /dev/fuse)"
  if is_root && ! { : <>/dev/fuse; } 2>/dev/null; then
    die "root may not open /dev/fuse here: give the container the device (--device /dev/fuse) and CAP_SYS_ADMIN"
  fi
  need_tool fusermount3 fuse3 "a user who is not root mounts with it"
}

# build_binary PROFILE : sets BINARY to the path of kidafs, built once in this run; PROFILE is
# 'release' or 'dev'.
build_binary() {
  local folder=$1
  [ "$1" = dev ] && folder=debug
  command -v cargo >/dev/null || die "no 'cargo' here: install Rust (rustup.rs) and start again"
  (cd "$ROOT" && cargo build --quiet --locked --bin kidafs --profile "$1") >&2
  BINARY=${CARGO_TARGET_DIR:-$ROOT/target}/$folder/kidafs
  [ -x "$BINARY" ] || die "cargo built no $BINARY"
  export BINARY
}

# make_workdir NAME : sets WORK to a fresh folder, which is removed when the script ends, however
# it ends. What is mounted under it (say so with mounted) is unmounted first.
make_workdir() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/kidafs-$1.XXXXXX")
  WORK=$(cd "$WORK" && pwd -P)
  export WORK
  MOUNTS=()
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# mounted DIR : DIR, a folder under $WORK, may carry a mount from now on.
mounted() {
  MOUNTS+=("$1")
}

cleanup() {
  local status=$? dir
  trap - EXIT
  for dir in "${MOUNTS[@]}"; do
    unmount "$dir" || {
      say "${0##*/}: $dir is still mounted: it is left as it is"
      exit 1
    }
  done
  # A mount left below would have its entries deleted: rm stays on one filesystem.
  rm -rf --one-file-system -- "$WORK"
  exit "$status"
}

# unmount DIR : DIR is no mount point afterwards; a daemon that died or hangs is detached.
unmount() {
  is_mounted "$1" || return 0
  umount -- "$1" 2>/dev/null || fusermount3 -u -- "$1" 2>/dev/null ||
    umount -l -- "$1" 2>/dev/null || fusermount3 -u -z -- "$1" 2>/dev/null || true
  ! is_mounted "$1"
}

# is_mounted DIR : reads the kernel's table, since a stat of a dead mount fails, and of a hung one
# hangs. DIR is absolute and, like all that make_workdir makes, free of blanks.
is_mounted() {
  awk -v dir="$1" '$5 == dir { found = 1 } END { exit !found }' /proc/self/mountinfo
}
