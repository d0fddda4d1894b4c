#!/usr/bin/env bash
# Measures on a GPU what the results ask of one, a part for each call: none takes more than ten minutes of an H200.
# From the root of the repository: experiments/results/gpu.sh PART [FOLDER OF RESULTS] [FOLDER OF RUNS]
# PART is roofline, evolution, breakout or halfcheetah; a part that was stopped goes on when it is called again.
# HADES is the command, by default .venv/bin/hades; LIMIT the seconds of a run with those of former calls, by default 560;
# SMALL=1 takes tiny settings, to try the script on a CPU.
set -euo pipefail
part=$1
out=${2:-experiments/results/gpu}
runs=${3:-runs/gpu}
hades=${HADES:-.venv/bin/hades}
small=${SMALL:-}
limit=${LIMIT:-560}
mkdir -p "$out"

# The published sizes: seconds of an iteration, and of its parts beside the rates of the device, and memory.
roofline() {
  local flags="" sizes=""
  if [ "$small" ]; then
    flags="--population-size 4 --num-episodes 1 --cloning.num-steps 2 --cloning.hidden-sizes 8 --max-steps 5"
    sizes="--repeats 1 --matrix-size 64 --copy-megabytes 1"
  fi
  for preset in ${PRESETS:-breakout hopper halfcheetah humanoid}; do
    $hades bench roofline --preset "paper/$preset-r" $sizes --flags="$flags" --out "$out/roofline_$preset.json"
  done
}

# The return of HaDES-R at the published size by the clock; with LIMIT=1120, and then 1680, it goes on for half an hour.
evolution() {
  local preset=${PRESETS:-hopper} limits="--max-seconds $limit --tune-chunks"
  if [ "$small" ]; then
    limits="--num-iterations 1 --population-size 4 --num-episodes 1 --cloning.num-steps 2 --cloning.hidden-sizes 8 --max-steps 5"
  fi
  $hades distill --preset "paper/$preset-r" $limits --out "$runs/$preset" --resume --json >"$out/evolution_$preset.json"
}

# HaDES-PG with eight times the environments: seconds to a return.
policy_gradient() {  # NAME TARGET FLAGS...
  local name=$1 target=$2 limits="--max-seconds $limit"
  [ "$small" ] && limits="--num-envs 8 --num-steps 8 --num-iterations 1 --evaluate-every 1 --evaluation-episodes 1"
  $hades distill --method hades-pg "${@:3}" --target-return "$target" $limits --out "$runs/pg-$name" --resume --json \
    >"$out/hades_pg_$name.json"
}

case $part in
  roofline | evolution) "$part" ;;
  breakout) policy_gradient breakout 15 --preset breakout-cnn --num-envs 512 ;;
  halfcheetah) policy_gradient halfcheetah 3400 --preset halfcheetah --num-envs 512 ;;
  *)
    echo "PART: expected roofline, evolution, breakout or halfcheetah, got $part" >&2
    exit 1
    ;;
esac
