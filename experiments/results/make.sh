#!/usr/bin/env bash
# Makes the results of the comparisons in this folder again, on two CPU cores in some hours; runs that are there go on.
# From the root of the repository: experiments/results/make.sh [FOLDER OF RUNS]
set -euo pipefail
runs=${1:-runs/results}
out=experiments/results
hades=.venv/bin/hades

# Presets over three seeds.
$hades bench presets --presets acrobot mountaincar pendulum hopper inverted-pendulum --runs "$runs/presets" --out $out/preset_runs.json

# One generation against the straightforward formulation.
$hades bench generation --out $out/generation.json

# An iteration over forced devices of the CPU.
$hades bench scaling --method hades-r --num-iterations 15 --out $out/scaling/hades-r.json
$hades bench scaling --method hades-pg --num-iterations 31 --out $out/scaling/hades-pg.json
$hades bench scaling --method hades-r --env gymnax/Acrobot-v1 --devices 1 2 4 --num-iterations 9 --out $out/scaling/hades-r_acrobot.json
$hades bench scaling --method hades-r --env gymnax/Breakout-MinAtar --devices 1 2 4 --num-iterations 5 --out $out/scaling/hades-r_breakout.json
$hades bench scaling --method hades-pg --env gymnax/Breakout-MinAtar --devices 1 2 4 --num-iterations 15 --out $out/scaling/hades-pg_breakout.json
$hades bench scaling --method es --env gymnax/Breakout-MinAtar --num-iterations 9 --flags="--evolution.perturbations stored" \
  --out $out/scaling/es_stored_breakout.json
# Values of a setting that change the work of an iteration alone; what a short command waits for; long runs.
$hades bench iteration --env brax/hopper --setting rollout-halvings --values 0 1 2 3 --after 5 \
  --out $out/iteration/hopper_halvings.json
for after in 1 30; do
  $hades bench iteration --env brax/hopper --setting rollout-halvings --values 0 1 3 --after $after --num-iterations 3 \
    --out $out/iteration/hopper_halvings_after$after.json
done
chunks="$hades bench iteration --setting cloning-chunk-size --env"
$chunks gymnax/CartPole-v1 --values None 32 8 2 1 --num-iterations 9 --flags="--population-size 128" \
  --out $out/iteration/cartpole_cloning_chunks.json
$chunks gymnax/Breakout-MinAtar --values None 16 4 2 1 --num-iterations 7 --flags="--cpu-chunk-size None" --out $out/iteration/breakout_cloning_chunks.json
$chunks gymnax/Breakout-MinAtar --values None 8 4 2 --num-iterations 9 --devices 2 --flags="--cpu-chunk-size None" \
  --out $out/iteration/breakout_cloning_chunks_two_devices.json
$chunks brax/hopper --values None 4 1 --num-iterations 3 --flags="--dataset-size 64 --population-size 16 --cloning.hidden-sizes 512 512" \
  --out $out/iteration/hopper512_cloning_chunks.json
$hades bench meta-gradient --num-seeds 8 --devices 1 2 4 8 --repeats 7 --dataset-size 64 --cloning.hidden-sizes 64 64 --cloning.num-steps 50 \
  --out $out/scaling/av-pbc.json
$hades bench iteration --setting rollout-halvings --values 0 1 2 3 --after 15 --num-iterations 15 \
  --flags="--population-size 128" --out $out/iteration/cartpole_halvings.json
$hades bench compile --out $out/compile.json
.venv/bin/python -m experiments.checks.soak --json >$out/soak_cartpole.json
.venv/bin/python -m experiments.checks.soak --num-iterations 200000 --json --flags="--env diagnostic/target --population-size 8
  --cloning.hidden-sizes 8 --cloning.num-steps 4 --iterations-per-call 1000 --log-every 100 --evaluate-every 20000 --devices 1" >$out/soak_diagnostic.json
# The parts of an iteration beside the rates of the machine.
$hades bench roofline --out $out/roofline/cartpole.json
$hades bench roofline --env gymnax/Breakout-MinAtar --out $out/roofline/breakout.json
for kind in stored regenerated low_rank; do
  $hades bench scaling --method es --num-iterations 31 --flags="--evolution.perturbations $kind" --out "$out/scaling/es_$kind.json"
done

# HaDES against ES and PPO.
$hades bench neuroevolution --env gymnax/CartPole-v1 gymnax/Acrobot-v1 gymnax/Breakout-MinAtar --env-steps 2000000 \
  --runs "$runs/neuroevolution" --out $out/neuroevolution
$hades bench neuroevolution --env brax/inverted_pendulum --env-steps 5000000 \
  --runs "$runs/neuroevolution" --out $out/neuroevolution

# Objects moved by contact: MuJoCo Playground (extra playground). A step of BallInCup is ten of the simulator.
contact="--methods hades-pg ppo --seeds 0-4 --runs $runs/playground --out $out/playground"
$hades bench neuroevolution --env playground/FingerSpin --env-steps 491520 $contact --flags="--iterations-per-call 10 --evaluate-every 20"
$hades bench neuroevolution --env playground/BallInCup --env-steps 98304 $contact --flags="--iterations-per-call 3 --evaluate-every 6"
$hades bench neuroevolution --env brax/pusher --env-steps 491520 --methods hades-pg hades-r ppo --seeds 0-4 --runs "$runs/playground" \
  --out $out/playground --flags="--iterations-per-call 5 --evaluate-every 20"
# Evolution has another number of iterations, and a folder of its own.
$hades bench neuroevolution --env playground/FingerSpin --env-steps 491520 --methods hades-r --seeds 0-4 --runs "$runs/playground" \
  --out $out/playground/hades_r --flags="--iterations-per-call 2 --evaluate-every 4"
$hades bench neuroevolution --env playground/BallInCup --env-steps 98304 --methods hades-r --seeds 0-4 --runs "$runs/playground" \
  --out $out/playground/hades_r --flags="--iterations-per-call 2 --evaluate-every 4"
# On a GPU: hades distill --method hades-pg --preset panda-pick-cube, and hades baseline ppo --preset panda-pick-cube.

# The two CartPole pairs, and what else can be trained on them.
$hades distill --preset cartpole --out "$runs/cartpole-r" --resume
$hades distill --preset cartpole --method hades-f --num-inits 1 --out "$runs/cartpole-f" --resume
$hades bench architectures "$runs/cartpole-r" --out $out/architectures.json
for seed in 1 2; do
  $hades distill --preset cartpole --seed $seed --out "$runs/cartpole-r-seed$seed" --resume
  $hades bench architectures "$runs/cartpole-r-seed$seed" --out $out/architectures_seed$seed.json
done
$hades bench generalisation "$runs/cartpole-r" "$runs/cartpole-f" --num-inits 16 --num-episodes 8 \
  --out $out/generalisation_cartpole.json

# The published Brax pairs; REFERENCE is the folder of published datasets.
reference=${REFERENCE:-../shared/reference/hades}
merged() {  # RESULT EVALUATION FILES...: scores of the tasks of a merged file.
  $hades merge "${@:3}" --out "$runs/merged.npz"
  $hades evaluate "$runs/merged.npz" $2 --json >$out/merge/$1.json
}
merged cartpole_acrobot "--num-inits 16 --num-episodes 8" zoo:cartpole zoo:acrobot
merged cartpole_acrobot_shared "--num-inits 16 --num-episodes 8" zoo:cartpole zoo:acrobot --shared-places
merged hopper_walker2d "--num-inits 4 --num-episodes 2" "$reference"/hopper_hades-r_N4_fixed_seed0.npz "$reference"/walker2d_hades-r_N4_fixed_seed0.npz
coarse="--num-inits 4 --num-episodes 2 --depths 1 2 3 --learning-rate-factors 0.3 1 3 --step-factors 0.5 1 2"
$hades bench generalisation "$reference/hopper_hades-r_N4_fixed_seed0.npz" $coarse --widths 64 256 512 \
  --out $out/generalisation_brax.json
$hades bench generalisation "$reference/walker2d_hades-r_N4_fixed_seed0.npz" $coarse --widths 256 512 \
  --panels size optimiser budget --out $out/generalisation_walker2d.json

# The number of pairs; the cost of each method; PPO over five seeds at once.
$hades bench budget --values 2 4 16 64 --runs "$runs/budget" --out $out/budget
$hades bench cost --out $out/cost_cartpole.json
# ES at width 512 and population 2048, where the published code ran out of memory.
$hades bench cost --env gymnax/Breakout-MinAtar --methods es --num-iterations 1 --out $out/cost_es_width512.json \
  --flags="--population-size 2048 --num-episodes 8 --network.hidden-sizes 512 512 --evolution.strategy SNES
  --evolution.sigma 0.03 --evolution.learning-rate 1.0 --evolution.optimizer sgd --evolution.fitness-shaping None
  --evolution.temperature 20 --evolution.perturbations regenerated --rollout-chunk-size 16"
for preset in cartpole:409600 inverted-pendulum:1000000 breakout:1500000 asterix:1000000 hopper:500000; do
  name=${preset%%:*}
  $hades bench ppo --preset "$name" --env-steps "${preset##*:}" --out "$out/ppo/${name//-/_}.json"
done

# HaDES-PG: games beside HaDES-R, what an inner step, the optimiser and the number of pairs buy, bodies, and general pairs.
$hades bench neuroevolution --env gymnax/Breakout-MinAtar --methods hades-pg --seeds 0-4 --runs "$runs/hades_pg" --out $out/hades_pg
for game in SpaceInvaders:0-4 Freeway:0-4 Asterix:0-4; do
  $hades bench neuroevolution --env "gymnax/${game%%:*}-MinAtar" --methods hades-pg hades-r --seeds "${game##*:}" --runs "$runs/hades_pg" \
    --out $out/hades_pg
done
# HaDES-R for as many seconds as HaDES-PG takes there.
for game in SpaceInvaders:8000000 Freeway:70000000 Asterix:32000000; do
  $hades bench neuroevolution --env "gymnax/${game%%:*}-MinAtar" --methods hades-r --seeds 0-4 --env-steps "${game##*:}" \
    --runs "$runs/hades_pg/hades-r" --out $out/hades_pg/hades-r
done
$hades bench neuroevolution --env gymnax/SpaceInvaders-MinAtar --methods hades-pg --seeds 5-9 --runs "$runs/hades_pg" \
  --out $out/hades_pg/more_seeds
$hades bench neuroevolution --env gymnax/Breakout-MinAtar --methods hades-pg --flags="--dataset-size 16" --seeds 0-4 \
  --runs "$runs/hades_pg/n16" --out $out/hades_pg/n16
for method in ppmo hades-pg-f; do
  $hades bench neuroevolution --env gymnax/Breakout-MinAtar --methods $method --seeds 0-4 --runs "$runs/hades_pg" --out $out/hades_pg/$method
done
budget="$hades bench budget --env gymnax/Breakout-MinAtar --method hades-pg --seeds 0 --env-steps 1000000"
$budget --values 2 4 16 64 256 --runs "$runs/hades_pg/budget" --out $out/hades_pg/budget
$budget --setting cloning.num-steps --values 1 2 4 8 16 --runs "$runs/hades_pg/budget" --out $out/hades_pg/budget
$budget --setting cloning.optimizer --values sgd "sgd --cloning.momentum 0.9 --first-step-size 0.2" \
  "adam --cloning.step-sizes fixed --cloning.learning-rate 0.02" "sgd --cloning.activation relu" \
  --runs "$runs/hades_pg/budget" --out $out/hades_pg/budget
hopper_budget() {
  local first=$1
  shift
  $hades bench budget --env brax/hopper --method hades-pg --seeds 0 --env-steps 1500000 "$@" \
    --flags="$first --cloning.hidden-sizes 64 64 --critic-epochs 4 --critic-minibatches 4 --evaluate-every 90 --iterations-per-call 30 --evaluation-episodes 4" \
    --runs "$runs/hades_pg/budget" --out $out/hades_pg/budget
}
hopper_budget "--first-step-size 0.3" --setting cloning.num-steps --values 1 2 4 6 8 16
hopper_budget "" --setting cloning.optimizer --values "sgd --first-step-size 0.3" \
  "sgd --cloning.momentum 0.9 --first-step-size 0.2" "adam --cloning.step-sizes fixed --cloning.learning-rate 0.02" \
  "sgd --cloning.activation relu --first-step-size 0.3"
hopper_budget "--first-step-size 0.3" --values 2 4 16 256
$hades bench neuroevolution --env brax/inverted_pendulum --methods hades-pg hades-r --seeds 0-4 --env-steps 800000 \
  --runs "$runs/hades_pg" --out $out/hades_pg
# Environment steps to the usual thresholds: task, threshold, most steps of HaDES-PG, and of HaDES-R.
for task in "CartPole-v1 490 123000 2000000" "Acrobot-v1 -100 103000 2000000" "Pendulum-v1 -200 1500000 20000000"; do
  read -r name target gradient_steps steps <<< "$task"
  $hades bench time-to-return --env "gymnax/$name" --target "$target" --env-steps "$steps" --seeds 0-4 --runs "$runs/hades_pg/time-to-return" \
    --variants "hades-pg=hades-pg --max-env-steps $gradient_steps" hades-r=hades-r --flags="--iterations-per-call 2 --evaluate-every 2" \
    --out $out/hades_pg/time_to_return
done
for body in hopper walker2d halfcheetah; do
  $hades distill --method hades-pg --preset "$body" --out "$runs/hades_pg/$body" --resume
done
for seed in 1 2 3 4; do
  for body in hopper walker2d halfcheetah; do
    $hades distill --method hades-pg --preset $body --seed $seed --out "$runs/hades_pg/$body-seed$seed" --resume
  done
done
for seed in 0 1 2 3 4; do
  $hades distill --method hades-pg --preset hopper-4 --seed $seed --out "$runs/hades_pg/hopper-4-seed$seed" --resume
  # Of before: half of the iterations, and no trust region.
  $hades distill --method hades-pg --preset hopper --dataset-size 4 --seed $seed --out "$runs/hades_pg/hopper4-seed$seed" --resume
done
$hades distill --method hades-pg --preset hopper-4 --meta-gradient.no-trust-region --seed 3 --out "$runs/hades_pg/hopper-4-untrusted" --resume
for seed in 0 1 2 3 4; do
  $hades distill --method hades-pg --preset walker2d --dataset-size 4 --num-iterations 1000 --meta-gradient.anneal-iterations 1000 \
    --evaluate-every 40 --seed $seed --out "$runs/hades_pg/walker2d4-seed$seed" --resume
done
$hades distill --method hades-pg --preset breakout-cnn --seed 1 --out "$runs/hades_pg/breakout-cnn-seed1" --resume
general="$hades distill --method hades-pg --preset cartpole-general"
grid() {  # RUN [JSON FILE]
  $hades bench generalisation "$1" --num-inits 16 --num-episodes 8 --out "${2:-$1-grid.json}"
}
general_run() {  # NAME FLAGS...
  $general "${@:2}" --out "$runs/hades_pg/cartpole-general-$1" --resume
  grid "$runs/hades_pg/cartpole-general-$1"
}
# The grids of tried_17.json: seeds, controls, and HaDES-R with as many pairs.
for seed in 2 3 4 5; do general_run eight-seed$seed --seed $seed; done
general_run eight-narrow --seed 3 --step-size-spread 3
general_run eight-undrawn --seed 3 --kernel-inits --step-size-spread 1
for seed in 0 1; do
  $hades distill --preset cartpole --dataset-size 8 --seed $seed --out "$runs/hades_pg/cartpole-r8-seed$seed" --resume
  grid "$runs/hades_pg/cartpole-r8-seed$seed"
done
# Of before the preset had eight pairs: the grids of tried_14.json and tried_16.json.
general="$general --dataset-size 2 --step-size-spread 3"
for seed in 2 3 4 5; do general_run two-seed$seed --seed $seed; done
# Of before it had more initialisations, iterations and a trust region.
general="$general --num-inits 8 --num-envs 16 --num-iterations 200 --meta-gradient.anneal-iterations 200"
general="$general --meta-gradient.learning-rate 0.03 --meta-gradient.no-trust-region"
for seed in 0 1 2; do
  name=cartpole-general-seed$seed
  suffix=$([ $seed = 0 ] || echo "_seed$seed")
  $general --seed $seed --out "$runs/hades_pg/$name" --resume
  $general --kernel-inits --step-size-spread 1 --seed $seed --out "$runs/hades_pg/$name-control" --resume
  grid "$runs/hades_pg/$name" "$out/hades_pg/generalisation_cartpole$suffix.json"
  grid "$runs/hades_pg/$name-control" "$out/hades_pg/generalisation_cartpole${suffix}_control.json"
done
# Acrobot, Pendulum and the long runs of tried_3.json: one distillation each, with the settings that stand there.
for task in acrobot pendulum; do
  $hades distill --method hades-pg --preset $task --evaluate-every 2 --iterations-per-call 2 --out "$runs/hades_pg/$task" --resume
done
$hades distill --method hades-pg --preset breakout --num-envs 256 --num-inits 8 --entropy-coefficient 0.01 --num-iterations 300 \
  --meta-gradient.anneal-iterations 300 --out "$runs/hades_pg/breakout-long" --resume
$hades bench throughput --cases hades-pg-breakout ppo-breakout --repeats 7 --out $out/hades_pg/throughput.json

# Runs that are killed, and runs over several processes that are ended in every way.
check=".venv/bin/python -m experiments.checks"
$check.resume --kills 20 --preset cartpole --num-iterations 60 --flags="--iterations-per-call 2 --evaluate-every 10" --json >$out/resume_check.json
$check.resume --kills 10 --preset cartpole --num-iterations 60 --flags="--method hades-pg --iterations-per-call 2 --evaluate-every 10" --json \
  >$out/hades_pg/resume_check.json
$check.processes --processes 1 2 4 --num-iterations 200 --json >$out/scaling/processes.json

# Offline distillation: published teachers in real MuJoCo, Cal-QL, and the objectives on data that the teachers collect.
teachers=${TEACHERS:-../shared/reference/teachers}
$hades bench teachers --teachers "$teachers" --out $out/offline/teachers.json
$hades bench cal-ql --out $out/offline/cal_ql_pendulum.json
$hades bench meta-gradient --out $out/offline/meta_gradient.json
# Data of five levels of noise of one teacher, and of one level; the same flags for all tables.
table="--num-steps 400 --evaluation-inits 5 --evaluation-episodes 2 --ensemble 1"
sdw="--effective-sample-size 0.5 --flow.epochs 5 --flow.max-states 20000"
for body in Hopper Walker2d HalfCheetah; do
  name=$(tr '[:upper:]' '[:lower:]' <<<"$body")
  teacher=$teachers/$name-medium-replay.npz data=$runs/offline/${name}_replay.hdf5
  [ -e "$data" ] || $hades offline collect --env "gymnasium/$body-v4" --teacher "$teacher" --noise 0.0 0.2 0.4 0.6 0.8 \
    --num-transitions 100000 --out "$data"
  $hades bench offline --data "$data" --teacher "$teacher" $table --dataset-size 256 --methods pbc av-pbc \
    --out "$out/offline/${name}_replay_256.json"
  $hades bench offline --data "$data" --teacher "$teacher" $table --methods dbc pbc av-pbc sdw-av-pbc $sdw --all-data-steps 0 \
    --datasets "$runs/offline/${name}_64" --out "$out/offline/${name}_replay_64.json"
  teacher=$teachers/$name-medium.npz data=$runs/offline/${name}_medium.hdf5
  [ -e "$data" ] || $hades offline collect --env "gymnasium/$body-v4" --teacher "$teacher" --noise 0.5 --num-transitions 100000 \
    --out "$data"
  $hades bench offline --data "$data" --teacher "$teacher" $table --methods dbc pbc av-pbc sdw-av-pbc $sdw \
    --out "$out/offline/${name}_medium_64.json"
  $hades bench offline --data "$data" --teacher "$teacher" $table --dataset-size 256 --methods pbc av-pbc sdw-av-pbc $sdw \
    --all-data-steps 0 --out "$out/offline/${name}_medium_256.json"
done
# The control of weighting, with ten seeds: SGD in both loops, and Adam.
sgd="--cloning.optimizer sgd --cloning.learning-rate 0.05 --meta-gradient.optimizer sgd --meta-gradient.learning-rate 0.4"
control="--num-seeds 10 --methods pbc pbc-mean-weight av-pbc --all-data-steps 0 --data $runs/offline/hopper_replay.hdf5"
$hades bench offline $control --teacher "$teachers/hopper-medium-replay.npz" $table $sgd --num-steps 800 \
  --out $out/offline/hopper_control_sgd_10.json
$hades bench offline $control --teacher "$teachers/hopper-medium-replay.npz" $table --datasets "$runs/offline/hopper_control" \
  --out $out/offline/hopper_control_adam_10.json
# Human demonstrations, and two episodes of experts.
demonstrations=${DEMONSTRATIONS:-../shared/reference/offline}
$hades bench offline --data "$demonstrations/door-human.hdf5" --num-steps 400 --evaluation-inits 5 --evaluation-episodes 4 \
  --out $out/offline/door_human.json
for body in Hopper Walker2d HalfCheetah Ant; do
  name=$(tr '[:upper:]' '[:lower:]' <<<"$body")
  $hades bench offline --data "$demonstrations/$name-expert-2x1000.hdf5" --env "gymnasium/$body-v4" --num-steps 400 \
    --evaluation-inits 4 --evaluation-episodes 2 --all-data-steps 3000 --out "$out/offline/expert_$name.json"
done
# Which objective predicts the score: correlations over the datasets of several objectives and seeds.
for body in walker2d:5 halfcheetah:3 hopper:5; do
  name=${body%%:*}
  datasets=$runs/offline/${name}_64
  [ "$name" = hopper ] && datasets=$runs/offline/hopper_control
  $hades bench objectives "$datasets"/*.npz --data "$runs/offline/${name}_replay.hdf5" --density knn \
    --teacher "$teachers/$name-medium-replay.npz" --num-episodes "${body##*:}" --out "$out/offline/objectives_$name.json"
done
# What was tried at N = 64, three other seeds; the name of a file is that of a row of the table.
tried() {
  local label=$1 name
  shift
  for name in walker2d halfcheetah; do
    $hades bench offline --data "$runs/offline/${name}_replay.hdf5" --teacher "$teachers/$name-medium-replay.npz" --seed 100 \
      --num-seeds 3 --methods av-pbc --num-steps 400 --evaluation-inits 8 --evaluation-episodes 3 --ensemble 1 \
      --all-data-steps 0 "$@" --out "$out/offline/tried/${name}_$label.json"
  done
}
tried default
tried q_pbc --methods q-pbc
tried kmeans --initialization kmeans
tried inits4 --num-inits 4
tried states2048 --num-states 2048
tried steps1600 --num-steps 1600
tried width256 --cloning.hidden-sizes 256 256
tried learned_adam --cloning.step-sizes learned
tried learned_sgd --cloning.step-sizes learned --cloning.optimizer sgd --cloning.learning-rate 0.05
tried ema --average-decay 0.98
tried n256 --dataset-size 256
# Pendulum, from the training of PPO to the pairs.
p=$runs/offline/pendulum
[ -e "$p" ] || $hades baseline ppo --preset pendulum --keep-snapshots --out "$p/ppo"
[ -e "$p/data.hdf5" ] || $hades offline collect --run "$p/ppo" --quality medium-replay --num-transitions 100000 --out "$p/data.hdf5"
[ -e "$p/teacher.npz" ] || $hades offline teach --data "$p/data.hdf5" --preset small --out "$p/teacher.npz"
$hades offline distill --data "$p/data.hdf5" --teacher "$p/teacher.npz" --objective pbc --num-iterations 400 --out "$p/distilled" --resume
$hades evaluate "$p/distilled/dataset.npz" --num-inits 8 --num-episodes 8 --seed 7 --baselines
# Hopper in Brax: data of the stages of PPO's training up to half way, and a teacher of these data.
p=$runs/offline/hopper_stages
[ -e "$p" ] || $hades baseline ppo --preset hopper --num-iterations 300 --anneal-updates 300 --keep-snapshots --out "$p/ppo"
[ -e "$p/data.hdf5" ] || $hades offline collect --run "$p/ppo" --quality medium-replay --num-transitions 100000 --out "$p/data.hdf5"
[ -e "$p/teacher.npz" ] || $hades offline teach --data "$p/data.hdf5" --preset small --out "$p/teacher.npz"
for pairs in 64 256; do
  $hades bench offline --data "$p/data.hdf5" --teacher "$p/teacher.npz" $table --dataset-size $pairs --methods pbc av-pbc \
    --out "$out/offline/hopper_stages_$pairs.json"
done
# Discrete actions: Breakout-MinAtar, with a policy of PPO for collection and teacher.
[ -e "$runs/offline/breakout_ppo" ] || $hades baseline ppo --preset breakout --max-seconds 400 --out "$runs/offline/breakout_ppo"
[ -e "$runs/offline/breakout.hdf5" ] || $hades offline collect --policy "$runs/offline/breakout_ppo" --epsilon 0.2 \
  --num-transitions 50000 --out "$runs/offline/breakout.hdf5"
$hades bench offline --data "$runs/offline/breakout.hdf5" --teacher "$runs/offline/breakout_ppo" --num-steps 400 \
  --evaluation-inits 5 --evaluation-episodes 4 --out $out/offline/breakout.json
$hades bench offline --data "$runs/offline/breakout.hdf5" --teacher "$runs/offline/breakout_ppo" --num-steps 400 --methods pbc \
  --min-std 1 --all-data-steps 0 --evaluation-inits 5 --evaluation-episodes 4 --out $out/offline/breakout_min_std.json
# The first tables, with the former defaults: SGD in both loops.
for body in Hopper:800 Walker2d:1500 HalfCheetah:2500; do
  env=gymnasium/${body%%:*}-v4 name=$(tr '[:upper:]' '[:lower:]' <<<"${body%%:*}")
  teacher=$teachers/$name-medium-replay.npz data=$runs/offline/$name.hdf5
  [ -e "$data" ] || $hades offline collect --env "$env" --teacher "$teacher" --noise 0.1 0.3 0.6 --random-fraction 0.25 \
    --num-transitions 100000 --out "$data"
  $hades bench offline --data "$data" --teacher "$teacher" --methods dbc pbc pbc-mean-weight av-pbc sdw-av-pbc \
    $sgd --num-steps "${body##*:}" --evaluation-inits 5 --evaluation-episodes 2 --flow.epochs 5 --flow.max-states 20000 \
    --datasets "$runs/offline/$name" --out "$out/offline/$name.json"
done
$hades bench transfer "$runs"/offline/hopper/av-pbc-seed*.npz --out $out/offline/transfer_hopper.json

# Ways to be sooner at a return: schedules, cheap first stages, codes of principal components.
first_stages() {  # ENV TARGET STEPS FIRST PG_STEPS PG_FIRST SHORT RESTART FLAGS...
  few="--cloning.num-steps 16 --cloning.learning-rate 0.04" narrow="--cloning.hidden-sizes 16 16"
  $hades bench time-to-return --env "$1" --target "$2" --env-steps "$3" "${@:9}" --runs "$runs/time-to-return" --out $out/time_to_return \
    --variants plain=hades-r "decay=hades-r --evolution.sigma-decay 0.98" \
    "both decay=hades-r --evolution.sigma-decay 0.98 --evolution.learning-rate-decay 0.98" \
    "narrow=hades-r $narrow --max-env-steps $4 then hades-r" "few steps=hades-r $few --max-env-steps $4 then hades-r" \
    "narrow and few=hades-r $narrow $few --max-env-steps $4 then hades-r" \
    "short horizon=hades-r --max-steps $7 --max-env-steps $4 then hades-r" "restart=hades-r --max-env-steps $8 then hades-r" \
    "pg=hades-pg --max-env-steps $5 --evaluate-every 4" "polished=hades-pg --max-env-steps $6 --evaluate-every 4 then hades-r"
}
# The rows of HaDES-PG in results/time_to_return/pg are those of plain, pg and polished alone.
first_stages gymnax/CartPole-v1 490 1500000 300000 300000 60000 150 400000 --seeds 0-2
first_stages gymnax/Acrobot-v1 -100 1500000 250000 200000 80000 200 400000 --seeds 0-2
first_stages gymnax/MountainCarContinuous-v0 90 3000000 400000 300000 80000 300 400000 --seeds 0-4 \
  --flags="--iterations-per-call 1 --evaluate-every 1"
codes() {  # GAME TARGET STEPS SEEDS
  $hades bench time-to-return --env "gymnax/$1-MinAtar" --target "$2" --env-steps "$3" --seeds "$4" --runs "$runs/time-to-return" \
    --out $out/time_to_return --variants plain=hades-r "codes=hades-r --num-codes 16"
}
codes Breakout 4 2000000 0-2
codes SpaceInvaders 9 3000000 0

# Exported policies against ours.
$hades bench export --out $out/export.json
# The datasets of the package, with their cards; then all of them again on other keys.
$hades zoo make all --runs "$runs/zoo" --teachers "$teachers" --out hades/zoo/files
$hades zoo verify --json >$out/zoo_verification.json
# Images: one a class, by meta-gradients; HADES_IMAGES names the folder of the folders mnist and fashion.
small="--population-size 32 --cloning.num-steps 50 --cloning.learning-rate 0.4 --num-images 512"
evolved="--outer evolution $small --evolution.sigma 0.05 --evolution.learning-rate 0.005 --num-iterations 100000 --max-seconds 480"
image_run() {  # IMAGES LABEL SEED FLAGS...
  $hades images distill --data "$HADES_IMAGES/$1" --preset "$1" --seed "$3" --out "$runs/images/$1-$2$3" --resume "${@:4}"
  $hades images evaluate "$runs/images/$1-$2$3" --num-inits 8 --seed 100 --json >"$out/images/$1_$2$3.json"
}
for images in mnist fashion; do
  for seed in 0 1 2; do
    image_run $images seed $seed
    image_run $images evolution_seed $seed $evolved --evaluate-every 50 --iterations-per-call 10
  done
done
for seed in 0 1 2; do image_run mnist wide_seed $seed --cloning.hidden-sizes 512 --num-images 512; done
image_run mnist long_seed 10 --num-iterations 8000 --num-images 1024 --meta-gradient.anneal-iterations 8000 --evaluate-every 2000
$hades bench generalisation "$runs/images/mnist-seed0" --panels size optimiser --widths 32 128 512 --depths 1 2 \
  --num-inits 4 --num-episodes 2000 --out $out/images/generalisation_mnist.json
