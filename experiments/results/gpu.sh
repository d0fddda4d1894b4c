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
name=${preset#paper/}
hades=${HADES:-.venv/bin/hades}
if [ "${SMALL:-}" ]; then
  runs=${RUNS:-runs/gpu-small} out=${OUT:-${RUNS:-runs/gpu-small}/results}
  sizes="--population-size 4 --num-episodes 4 --cloning.num-steps 2 --cloning.hidden-sizes 8 --max-steps 5"
  rates="--repeats 1 --matrix-size 64 --copy-megabytes 1"
  evolution="--num-iterations 1 $sizes"
  gradients="--num-envs 8 --num-steps 8 --num-iterations 1 --evaluate-every 1 --evaluation-episodes 1"
else
  runs=${RUNS:-runs/gpu} out=${OUT:-experiments/results/gpu}
  sizes=""
  # Larger than what a launch takes.
  rates="--matrix-size 16384 --copy-megabytes 8192"
  gradients="--max-seconds ${LIMIT:-400}"
  evolution="$gradients --tune-chunks"
fi

distill() {  # RUN RESULT FLAGS...: keeps the summary of a run that has ended, and what it ran on.
  $hades distill "${@:3}" --out "$runs/$1" --resume
  cp "$runs/$1/summary.json" "$out/$2.json"
  cp "$runs/$1/versions.json" "$out/$2-versions.json"
}

policy_gradient() {  # PRESET TARGET
  distill "pg-$part" "hades-pg-$part" --method hades-pg --preset "$1" --num-envs 512 --target-return "$2" $gradients
}

mkdir -p "$out"
case $part${preset:+ PRESET} in
  "roofline PRESET") $hades bench roofline --preset "$preset" $rates --flags="$sizes" --out "$out/roofline-$name.json" ;;
  "evolution PRESET") distill "$name" "evolution-$name" --preset "$preset" $evolution ;;
  breakout) policy_gradient breakout-cnn 15 ;;
  halfcheetah) policy_gradient halfcheetah 3400 ;;
  *)
    echo "expected roofline PRESET, evolution PRESET, breakout or halfcheetah, got '$part${preset:+ }$preset'" >&2
    exit 1
    ;;
esac
