#!/usr/bin/env bash
# The smoke study on a Slurm cluster of one node, and the same study without: every aggregate must have the same bytes.
# bash tests/slurm/run.sh [CONFIG]; prints why, and ends with 0, where Slurm cannot run.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=${1:-config/smoke.yaml}

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "Slurm: not run, it needs root and apt-get here"
  exit 0
fi
ran=$(pgrep -x slurmctld || pgrep -x munged || true)
cluster=$(mktemp -d)
stop() {
  rm -rf "$cluster"
  for daemon in slurmctld slurmd munge/munged; do
    test -n "$ran" || kill "$(cat "/run/$daemon.pid")" 2> /dev/null || true
  done
}
trap stop EXIT
if ! bash tests/slurm/one_node.sh > "$cluster/one_node.log" 2>&1; then
  echo "Slurm: not run, it could not be started: $(tail -n 1 "$cluster/one_node.log")"
  exit 0
fi

export PATH="$PWD/.venv/bin:$PATH" OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
cp -r Snakefile workflow config src "$cluster"

snakemake --cores 2 --configfile "$config" -- aggregates
(
  cd "$cluster"
  export PYTHONPATH="$cluster/src"
  echo "study: {shared_jobs: 1}" > one.yaml # the fewer processes, and another division of the cells
  snakemake --profile workflow/profiles/slurm --jobs 8 --group-components cells=2 --configfile "$config" one.yaml \
    --latency-wait 10 --slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 5 \
    -- aggregates
  submitted=$(scontrol show jobs --oneliner | grep -c JobId= || true)
  echo "Slurm: $submitted jobs"
  test "$submitted" -gt 0
)
.venv/bin/python tests/slurm/same_bytes.py . "$cluster" "$config"
