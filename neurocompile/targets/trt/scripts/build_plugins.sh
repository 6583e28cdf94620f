#!/usr/bin/env bash
# Compiles the plugins of this bundle with the headers of the TensorRT and CUDA of this machine. Seconds; no nvcc.
#
#   bash build_plugins.sh [--dry-run] [--tensorrt DIR] [--cuda DIR] [-o DIR]
#
# --tensorrt and --cuda name folders with NvInferRuntime.h and cuda.h, or with include/ in them, where they are not
# found (Debian and Jetson: libnvinfer-headers-dev, cuda-cudart-dev-X-Y); $CXX names a compiler other than g++.
# The library goes beside the bundle, to NAME.plugins, where the runtime looks for it, or to the folder after -o.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wanted="@TENSORRT@"
dry=""
tensorrt=""
cuda=""
out="${here%.neuro}.plugins"
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1 ;;
    --tensorrt) tensorrt=${2:?--tensorrt needs a folder}; shift ;;
    --cuda) cuda=${2:?--cuda needs a folder}; shift ;;
    -o) out=${2:?-o needs a folder}; shift ;;
    *) echo "error: unknown option $1; see the head of $0" >&2; exit 2 ;;
  esac
  shift
done

refuse() {
  echo "error: $*" >&2
  exit 2
}

run() {
  echo "+ $*"
  [ -n "$dry" ] || "$@"
}

# The first of some folders that holds a header, or include/ in it that does.
holding() {
  local header=$1 folder
  shift
  for folder in "$@"; do
    if [ -e "$folder/$header" ]; then echo "$folder"; return; fi
    if [ -e "$folder/include/$header" ]; then echo "$folder/include"; return; fi
  done
}

if [ -n "$tensorrt" ]; then places=("$tensorrt"); else
  places=(/usr/include/*-linux-gnu /usr/include /usr/local/tensorrt /opt/tensorrt /usr/src/tensorrt)
fi
headers=$(holding NvInferRuntime.h "${places[@]}")
if [ -n "$cuda" ]; then places=("$cuda"); else
  places=("${CUDA_HOME:-/usr/local/cuda}" /usr/local/cuda /usr/local/cuda/targets/* /usr/include)
fi
driver=$(holding cuda.h "${places[@]}")
[ -n "$headers" ] || refuse "NvInferRuntime.h is not found; install TensorRT's headers (Debian and Jetson:" \
  "libnvinfer-headers-dev) or name their folder with --tensorrt"
[ -n "$driver" ] || refuse "cuda.h is not found; install CUDA's headers (Debian and Jetson: cuda-cudart-dev-12-6 or" \
  "the one of your CUDA) or name their folder with --cuda"
compiler=${CXX:-g++}
command -v "${compiler%% *}" > /dev/null || refuse "$compiler is not installed; install g++ or name a compiler with CXX"

# The version by the preprocessor: releases define it through other names.
# shellcheck disable=SC2086
version=$(printf '#include <NvInferVersion.h>\nNV_TENSORRT_MAJOR.NV_TENSORRT_MINOR\n' \
  | $compiler -E -P -x c++ -isystem "$headers" -isystem "$driver" - | tail -n 1 | tr -d ' ')
[ "${version%%.*}" = "${wanted%%.*}" ] || refuse "the headers in $headers are of TensorRT ${version:-unknown}, and the" \
  "bundle was exported for $wanted; export it with --tensorrt ${version%%.*} or name other headers with --tensorrt"

library="libneurocompile_plugins.so"
part="$out/.$library.$$"
trap 'rm -f "$part" "$out/.plugins.json.$$"' EXIT
flags=(-std=c++17 -O2 -fPIC -shared "-fvisibility=hidden" -Wall -Wextra -isystem "$headers" -isystem "$driver")
run mkdir -p "$out"
# shellcheck disable=SC2086
run $compiler "${flags[@]}" "$here"/plugins/cpp/*.cpp -o "$part" -ldl
if [ -n "$dry" ]; then
  echo "+ write $out/plugins.json and $out/$library, TensorRT $version"
  exit 0
fi
sources=$(cd "$here" && sha256sum plugins/cpp/* | LC_ALL=C sort -k 2 | sha256sum | cut -d ' ' -f 1)
digest=$(sha256sum "$part" | cut -d ' ' -f 1)
printf '{"library": "%s", "sha256": "%s", "sources": "%s", "tensorrt": "%s", "machine": "%s", "compiler": "%s"}\n' \
  "$library" "$digest" "$sources" "$version" "$(uname -m)" "$compiler" > "$out/.plugins.json.$$"
mv "$part" "$out/$library"
mv "$out/.plugins.json.$$" "$out/plugins.json"
echo "compiled $out/$library with the headers of TensorRT $version"
