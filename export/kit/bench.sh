#!/usr/bin/env bash
# Times the bundle event by event and writes beside the figures what they depend on: power mode, clocks, temperatures.
#
#   ./bench.sh [--dry-run] [--max] [-- OPTIONS OF runtime.bench]
#
# --max fixes the highest power mode and clocks first (needs sudo; `sudo jetson_clocks --restore` undoes the clocks).
# Everything goes to results/TIME/; the recording is recording.npz unless the options name another with -i.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry=""
max=""
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1 ;;
    --max) max=1 ;;
    --) shift; break ;;
    *) echo "error: unknown option $1; see the head of $0" >&2; exit 2 ;;
  esac
  shift
done
[ $# -gt 0 ] || set -- -i "$here/recording.npz" --events 50000

run() {
  echo "+ $*"
  [ -n "$dry" ] || "$@"
}

# A tool that is missing is written down as missing.
note() {
  local file=$1
  shift
  echo "+ $* > $file"
  [ -n "$dry" ] && return 0
  if command -v "$1" > /dev/null; then
    "$@" > "$file" 2>&1 || echo "failed" >> "$file"
  else
    echo "$1 is not installed" > "$file"
  fi
}

results="$here/results/$(date -u +%Y%m%dT%H%M%SZ)"
run mkdir -p "$results"
if [ -n "$max" ]; then
  run sudo nvpmodel -m 0
  run sudo jetson_clocks
fi
note "$results/nvpmodel.txt" nvpmodel -q
note "$results/clocks.txt" sudo -n jetson_clocks --show
note "$results/release.txt" cat /etc/nv_tegra_release
note "$results/before.txt" timeout 3 tegrastats --interval 500
export PYTHONPATH="$here"
run python3 -m runtime.bench "$here/@NAME@.neuro" --batch 1 --json "$results/tensorrt.json" "$@"
if [ -d "$here/@NAME@.cpu.neuro" ]; then
  run python3 -m runtime.bench "$here/@NAME@.cpu.neuro" --batch 1 --json "$results/cpu.json" "$@"
fi
note "$results/after.txt" timeout 3 tegrastats --interval 500
echo "results in $results"
