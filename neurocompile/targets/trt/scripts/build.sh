#!/usr/bin/env bash
# Does on this machine what was left to do when the bundle was exported: compiles its plugins, where it has any, builds
# its engines, keeps them, and checks them against the golden trace. Minutes, once.
#
#   bash build.sh [--dry-run] [OPTIONS OF build_plugins.sh]
#
# Wanted: @WANTED@, its Python module `tensorrt`, numpy, and neurocompile's package `runtime`.
# $PYTHON names an interpreter other than python3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
dry=""
[ "${1:-}" != --dry-run ] || dry=1
if [ -z "$dry" ] && [ $# -gt 0 ] && [ ! -e "$here/build_plugins.sh" ]; then
  echo "error: unknown option $1; see the head of $0" >&2
  exit 2
fi

run() {
  echo "+ $*"
  [ -n "$dry" ] || "$@"
}

if [ -z "$dry" ] && ! "$python" -c "import runtime.verify" 2> /dev/null; then
  echo "error: $python does not find neurocompile's package runtime; pip install neurocompile, or set PYTHONPATH to a" \
    "folder that holds it" >&2
  exit 2
fi
if [ -e "$here/build_plugins.sh" ]; then
  echo "+ bash $here/build_plugins.sh $*"
  bash "$here/build_plugins.sh" "$@"  # knows --dry-run itself
fi
run "$python" -m runtime.verify "$here"
