#!/usr/bin/env bash
# A whole run inside one allocation, one job per GPU:
#   sbatch [options of sbatch] profiles/pilot/pilot.sh [options of snakemake]
# Three minutes before its time is up, it stops its jobs and queues itself again to continue.
#SBATCH --job-name=node-robustness
#SBATCH --output=pilot-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
set -euo pipefail

limits=(mem_mb="$SLURM_MEM_PER_NODE")
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then limits+=(gpu="$SLURM_GPUS_ON_NODE"); fi
# `--resources` takes all words up to the next option: targets must not come right after it.
run=(snakemake --profile profiles/pilot --resources "${limits[@]}" --cores "$SLURM_CPUS_PER_TASK" "$@")

# Whatever ran before under this job's number is dead, and so is the owner of its lock.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then "${run[@]}" --unlock; fi

again=
stop() {
  again=yes
  kill -INT -- "-$snakemake"
}
set -m # another process group, in which interrupts are not ignored
"${run[@]}" &
snakemake=$!
trap stop USR1
status=0
wait "$snakemake" || status=$?
if [ -n "$again" ]; then
  wait "$snakemake" || true
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
