#!/usr/bin/env bash
# Install what the Slurm tests need, where that can be done: as root, with apt. Elsewhere the tests
# name themselves as NOT RUN.
set -euo pipefail
command -v slurmctld munged slurmd sbatch > /dev/null && exit 0
[[ $(id -u) == 0 ]] && command -v apt-get > /dev/null || exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge > /dev/null
