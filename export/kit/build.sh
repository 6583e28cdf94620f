#!/usr/bin/env bash
# Compiles the plugins, where the bundle has any, builds the engines on this device, keeps them, and checks them against
# the golden trace of the bundle. Minutes, once.
#
#   ./build.sh [--dry-run]
#
# Where TensorRT cannot run the bundle, the compiled library for the processor is checked instead.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry=""
case ${1:-} in
  "") ;;
  --dry-run) dry=1 ;;
  *) echo "error: unknown option $1; see the head of $0" >&2; exit 2 ;;
esac

run() {
  echo "+ $*"
  [ -n "$dry" ] || "$@"
}

# Stops unless every file is the one that was exported.
whole() {
  local said
  echo "+ sha256sum --check SHA256SUMS"
  [ -z "$dry" ] || return 0
  if said=$(cd "$here" && LC_ALL=C sha256sum --quiet --check SHA256SUMS 2> /dev/null); then return 0; fi
  said=${said:-SHA256SUMS:}
  echo "error: ${said%%:*} of this kit is not the file that was exported; copy the kit again" >&2
  exit 1
}

export PYTHONPATH="$here"
whole
plugins="$here/@NAME@.neuro/build_plugins.sh"
if [ -e "$plugins" ]; then
  # Without them the engines are refused below, in a sentence of its own.
  echo "+ bash $plugins ${dry:+--dry-run}"
  bash "$plugins" ${dry:+--dry-run} || echo "the plugins are not compiled"
fi
if run python3 -m runtime.verify "$here/@NAME@.neuro"; then
  echo "use: PYTHONPATH=$here python3 -m runtime.run $here/@NAME@.neuro -i RECORDING"
  exit 0
fi
fallback="$here/@NAME@.cpu.neuro"
if [ ! -d "$fallback" ]; then
  echo "error: the engines do not hold here, and this kit has no library for the processor (see README.md)" >&2
  exit 1
fi
echo "TensorRT cannot run it here; checking the library for the processor"
run python3 -m runtime.verify "$fallback"
echo "use: PYTHONPATH=$here python3 -m runtime.run $fallback -i RECORDING"
