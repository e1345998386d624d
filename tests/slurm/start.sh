#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests: no systemd, no cgroups, no accounting.
#   tests/slurm/start.sh FOLDER         start munged, slurmctld and slurmd; all they write is in FOLDER
#   tests/slurm/start.sh stop FOLDER    stop them
# To use it: export SLURM_CONF=FOLDER/slurm.conf PATH=FOLDER/bin:$PATH
# Needs slurmctld, slurmd and munge (Debian: apt-get install slurm-wlm munge). SLURM_TEST_PORT moves its two ports.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

stop() {
  local name pid
  # Its jobs first: they would outlive the daemons.
  SLURM_CONF="$1/slurm.conf" timeout 10 scancel --user "$(id -un)" 2>/dev/null || true
  for _ in $(seq 20); do
    [ -n "$(SLURM_CONF="$1/slurm.conf" timeout 10 squeue --noheader 2>/dev/null)" ] || break
    sleep 0.5
  done
  for name in slurmd slurmctld munged; do
    pid=$(cat "$1/$name.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$1/$name.pid"
  done
}

if [ "${1:-}" = stop ]; then
  stop "$(realpath "${2:?which folder?}")"
  exit
fi

folder=$(realpath "${1:?usage: start.sh FOLDER, or start.sh stop FOLDER}")
port=${SLURM_TEST_PORT:-16817}
user=$(id -un)
host=$(hostname -s)
memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
mkdir -p "$folder/state" "$folder/spool" "$folder/bin"
chmod 755 "$folder"

# munge signs what the daemons say to each other. A key of its own leaves that of the machine alone.
(umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")

cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
# What would want cgroups is off. linuxproc finds a job's processes by their parents.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Two CPUs whatever the machine has, and no waiting where a cluster would be patient.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=300
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF

# Snakemake's executor drops SLURM_CONF before it calls srun in a job. So srun is told here.
printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$folder/slurm.conf" "$(command -v srun)" > "$folder/bin/srun"
chmod +x "$folder/bin/srun"

export SLURM_CONF="$folder/slurm.conf"
trap 'tail -n 20 "$folder"/*.log >&2; stop "$folder"' ERR
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
slurmctld -f "$SLURM_CONF" -c
slurmd -f "$SLURM_CONF"

for _ in $(seq 120); do
  if [ "$(sinfo --noheader --format %T 2>/dev/null)" = idle ]; then
    echo "SLURM is idle on $host. To use it: export SLURM_CONF=$SLURM_CONF PATH=$folder/bin:\$PATH"
    echo "To stop it: $0 stop $folder"
    trap - ERR
    exit
  fi
  sleep 0.5
done
echo "SLURM did not become idle in 60 s" >&2
false
