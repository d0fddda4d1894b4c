#!/usr/bin/env bash
# Measures on a GPU what the results ask of one. From the root of the repository:
#   experiments/results/gpu.sh roofline PRESET    seconds, work and memory of an iteration of hades distill --preset PRESET, such as paper/hopper-r
#   experiments/results/gpu.sh evolution PRESET   the return of such a run by the clock
#   experiments/results/gpu.sh breakout           HaDES-PG with eight times the environments: seconds to 15
#   experiments/results/gpu.sh halfcheetah        the same: seconds to 3400
# OUT is the folder of the results, RUNS that of the runs, HADES the command (.venv/bin/hades). LIMIT is the seconds of a run (400): called again
# with more it goes on. SMALL=1 takes tiny settings and folders of its own, to try the script on a CPU.
set -euo pipefail
part=${1:-} preset=${2:-}
small=${SMALL:-}
runs=${RUNS:-runs/gpu${small:+-small}}
out=${OUT:-$([ "$small" ] && echo "$runs/results" || echo experiments/results/gpu)}
hades=${HADES:-.venv/bin/hades}
limit=${LIMIT:-400}
name=${preset#paper/}
tiny="--population-size 4 --num-episodes 4 --cloning.num-steps 2 --cloning.hidden-sizes 8 --max-steps 5"

usage() {
  echo "expected roofline PRESET, evolution PRESET, breakout or halfcheetah, got '$part${preset:+ }$preset'" >&2
  exit 1
}

keep_summary() {  # RUN NAME: of a run that has ended, with its return, its seconds and its device.
  cp "$1/summary.json" "$out/$2.json"
  cp "$1/versions.json" "$out/$2-versions.json"
}

policy_gradient() {  # TARGET FLAGS...
  local limits="--max-seconds $limit"
  if [ "$small" ]; then
    limits="--num-envs 8 --num-steps 8 --num-iterations 1 --evaluate-every 1 --evaluation-episodes 1"
  fi
  $hades distill --method hades-pg --target-return "$1" "${@:2}" $limits --out "$runs/pg-$part" --resume
  keep_summary "$runs/pg-$part" "hades-pg-$part"
}

mkdir -p "$out"
case $part in
  roofline)
    [ "$preset" ] || usage
    # Larger than what a launch takes.
    sizes="--matrix-size 16384 --copy-megabytes 8192" flags=""
    if [ "$small" ]; then
      sizes="--repeats 1 --matrix-size 64 --copy-megabytes 1" flags=$tiny
    fi
    $hades bench roofline --preset "$preset" $sizes --flags="$flags" --out "$out/roofline-$name.json"
    ;;
  evolution)
    [ "$preset" ] || usage
    limits="--max-seconds $limit --tune-chunks"
    if [ "$small" ]; then
      limits="--num-iterations 1 $tiny"
    fi
    $hades distill --preset "$preset" $limits --out "$runs/$name" --resume
    keep_summary "$runs/$name" "evolution-$name"
    ;;
  breakout) policy_gradient 15 --preset breakout-cnn --num-envs 512 ;;
  halfcheetah) policy_gradient 3400 --preset halfcheetah --num-envs 512 ;;
  *) usage ;;
esac
