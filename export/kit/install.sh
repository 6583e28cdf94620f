#!/usr/bin/env bash
# Installs what the kit needs on this device and checks that the kit is complete. Run once, as a user who may use sudo.
#
#   ./install.sh [--dry-run] [--release R36.4]
#
# --dry-run prints the commands instead of running them; --release names the Jetson Linux release instead of reading it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry=""
release=""
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1 ;;
    --release) release=${2:?--release needs a name such as R36.4}; shift ;;
    *) echo "error: unknown option $1; see the head of $0" >&2; exit 2 ;;
  esac
  shift
done

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

if [ -z "$release" ] && [ -r /etc/nv_tegra_release ]; then
  # "# R36 (release), REVISION: 4.3, ..."
  release=$(sed -n 's/^# \(R[0-9]*\) (release), REVISION: \([0-9]*\).*/\1.\2/p' /etc/nv_tegra_release)
fi
case $release in
  R36.*)
    # JetPack 6: TensorRT 10.3 and its Python module come from NVIDIA's repository, which JetPack has set up.
    tensorrt=10
    cuda=12-6
    ;;
  R38.*)
    # JetPack 7.0 and 7.1: TensorRT 10.13 or newer.
    tensorrt="10 or 11"
    cuda=13-0
    ;;
  R39.*)
    # JetPack 7.2; for TensorRT 11, 7.2.2, see README.md.
    tensorrt="10 or 11"
    cuda=13-2
    ;;
  *)
    echo "error: Jetson Linux release '${release:-unknown}' is none that this kit knows (R36 is JetPack 6, R38 and R39" \
      "are JetPack 7); give --release, or install TensorRT and numpy for python3 by hand and run ./build.sh" >&2
    exit 2
    ;;
esac
packages="python3-numpy python3-libnvinfer libnvinfer-bin"
if [ -e "$here/@NAME@.neuro/build_plugins.sh" ]; then
  # What plugins are compiled with.
  packages="$packages g++ libnvinfer-headers-dev cuda-cudart-dev-$cuda cuda-crt-$cuda"
fi
echo "Jetson Linux $release, TensorRT $tensorrt; the kit was exported for TensorRT @TENSORRT@"

whole
run sudo apt-get update
# shellcheck disable=SC2086
run sudo apt-get install --yes --no-install-recommends $packages
run python3 -c "import numpy, tensorrt; print('numpy', numpy.__version__, 'TensorRT', tensorrt.__version__)"
echo "next: ./build.sh"
