#!/usr/bin/env bash
# A SLURM cluster on one machine, for the tests: nodes with pretend GPUs, preemption, and accounting.
#
#   cluster.sh install       the packages (Debian or Ubuntu, as root)
#   cluster.sh run COMMAND   start, run the command there, and stop, however the command ends
#   cluster.sh start         munged, mariadbd, slurmdbd, slurmctld and a slurmd for each node, as root
#   cluster.sh stop          all of them, and their jobs
#   cluster.sh env           the variables that its users need: eval "$(tests/slurm/cluster.sh env)"
#   cluster.sh restart 15    slurmctld alone, which is away for so many seconds
#   cluster.sh fail node1    a power cut: the node's slurmd and all that its jobs run; `start` brings it back
#
# Nothing outside its folder is touched: neither /etc/slurm and /etc/munge nor their daemons.
set -euo pipefail

FOLDER=${NODE_ROBUSTNESS_CLUSTER:-/tmp/node-robustness-cluster}
PORT=${NODE_ROBUSTNESS_CLUSTER_PORT:-36810} # and the five after it
HOST=$(hostname -s)
NODES=(node1 node2 node3)
export SLURM_CONF=$FOLDER/slurm.conf

install() {
  if type munged slurmctld slurmd slurmdbd srun mariadbd > /dev/null 2>&1; then return; fi
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    munge slurmctld slurmd slurmdbd slurm-client mariadb-server < /dev/null
}

configure() {
  mkdir -p "$FOLDER"/{bin,log,run,state,database} "$FOLDER"/spool/{node1,node2,node3}
  chmod 755 "$FOLDER"
  chown mysql: "$FOLDER/database"
  chmod 1777 "$FOLDER/run"
  if [ ! -s "$FOLDER/munge.key" ]; then
    (umask 077 && head -c 128 /dev/urandom > "$FOLDER/munge.key")
  fi
  # Memory is a consumable, and a job that uses more than it asked for is killed. A node has more
  # CPUs than the machine. On node3 partition `urgent` preempts `spot`, whose jobs run again, and
  # `lost`, whose jobs do not.
  cat > "$SLURM_CONF" <<CONF
ClusterName=pretend
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/run/munge.socket
CredType=cred/munge
SlurmctldPidFile=$FOLDER/run/slurmctld.pid
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdPidFile=$FOLDER/run/%n.pid
SlurmdLogFile=$FOLDER/log/%n.log
SlurmdSpoolDir=$FOLDER/spool/%n
StateSaveLocation=$FOLDER/state
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$FOLDER/run/munge.socket
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
SlurmdParameters=config_overrides
KillWait=2
NodeName=node1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 3)) CPUs=8 RealMemory=16000 Gres=gpu:pretend:2
NodeName=node2 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 4)) CPUs=8 RealMemory=16000 Gres=gpu:pretend:2
NodeName=node3 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 5)) CPUs=8 RealMemory=16000
PartitionName=cpu Nodes=node[1-2] Default=YES MaxTime=60 PreemptMode=OFF
PartitionName=gpu Nodes=node[1-2] MaxTime=60 PreemptMode=OFF
PartitionName=spot Nodes=node3 MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=lost Nodes=node3 MaxTime=60 PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=node3 MaxTime=60 PriorityTier=9 PreemptMode=OFF
CONF
  # A GPU must have a character device, which nobody opens; every machine has these two.
  ln -sf /dev/null "$FOLDER/gpu0"
  ln -sf /dev/zero "$FOLDER/gpu1"
  cat > "$FOLDER/gres.conf" <<CONF
AutoDetect=off
NodeName=node[1-2] Name=gpu Type=pretend File=$FOLDER/gpu[0-1]
CONF
  cat > "$FOLDER/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$FOLDER/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=root
LogFile=$FOLDER/log/slurmdbd.log
PidFile=$FOLDER/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 2))
StorageUser=slurm
StoragePass=pretend
StorageLoc=slurm
CONF
  chmod 600 "$FOLDER/slurmdbd.conf"
  # Inside a job the executor plugin calls srun without SLURM_CONF: give it back.
  cat > "$FOLDER/bin/srun" <<SH
#!/bin/sh
export SLURM_CONF=$SLURM_CONF
exec $(command -v srun) "\$@"
SH
  chmod 755 "$FOLDER/bin/srun"
}

# A dead daemon can linger as a zombie, for which `kill -0` succeeds.
alive() {
  local pid
  pid=$(cat "$1" 2> /dev/null) && [ -n "$pid" ] && grep -q '^[0-9]* ([^)]*) [^Z]' "/proc/$pid/stat" 2> /dev/null
}

await() {
  local until=$((SECONDS + 30))
  while ((SECONDS < until)); do
    if timeout 5 "$@" > /dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "waited 30 s in vain for: $*" >&2
  tail --lines=5 "$FOLDER"/log/*.log >&2
  exit 1
}

running() {
  local daemon
  for daemon in "${NODES[@]}" slurmctld slurmdbd mariadbd munged; do
    if alive "$FOLDER/run/$daemon.pid"; then return; fi
  done
  return 1
}

database() {
  local data=$FOLDER/database
  if [ ! -d "$data/mysql" ]; then
    mariadb-install-db --no-defaults --user=mysql --datadir="$data" --skip-test-db \
      --auth-root-authentication-method=normal > "$FOLDER/log/install.log" 2>&1
  fi
  cat > "$data/users.sql" <<'SQL'
CREATE DATABASE IF NOT EXISTS slurm;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'pretend';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
SQL
  setsid mariadbd --no-defaults --user=mysql --datadir="$data" --socket="$FOLDER/run/database.socket" \
    --pid-file="$FOLDER/run/mariadbd.pid" --bind-address=127.0.0.1 --port=$((PORT + 2)) \
    --innodb-buffer-pool-size=64M --skip-name-resolve --init-file="$data/users.sql" \
    > "$FOLDER/log/mariadbd.log" 2>&1 < /dev/null &
  await mariadb-admin --no-defaults --host=127.0.0.1 --port=$((PORT + 2)) --user=slurm --password=pretend ping
}

start() {
  if ! running; then
    # What an earlier cluster remembers, its jobs above all, must not come back.
    if [ -s "$SLURM_CONF" ]; then rm -rf "$FOLDER"; fi
    configure
  fi
  alive "$FOLDER/run/munged.pid" || munged --force --key-file="$FOLDER/munge.key" \
    --socket="$FOLDER/run/munge.socket" --pid-file="$FOLDER/run/munged.pid" \
    --log-file="$FOLDER/log/munged.log" --seed-file="$FOLDER/munge.seed"
  alive "$FOLDER/run/mariadbd.pid" || database
  alive "$FOLDER/run/slurmdbd.pid" || slurmdbd # reads slurmdbd.conf next to $SLURM_CONF
  await sacctmgr --noheader list cluster
  if [ -z "$(sacctmgr --noheader list account pretend)" ]; then
    sacctmgr --immediate add cluster pretend > /dev/null || true
    sacctmgr --immediate add account pretend > /dev/null
    sacctmgr --immediate add user "$(id -un)" account=pretend > /dev/null
  fi
  alive "$FOLDER/run/slurmctld.pid" || slurmctld
  for node in "${NODES[@]}"; do
    alive "$FOLDER/run/$node.pid" || slurmd -N "$node"
  done
  await srun --partition=cpu --nodes=2 --mem=100 --time=1 true
  await srun --partition=urgent --mem=100 --time=1 true
}

end() {
  alive "$1" || return 0
  local pid i
  pid=$(cat "$1")
  kill "$pid"
  for ((i = 0; i < 100; i++)); do
    alive "$1" || return 0
    sleep 0.1
  done
  kill -KILL "$pid"
}

# The processes in whose environment all these lines stand.
with() {
  local process line
  for process in /proc/[0-9]*; do
    for line in "$@"; do
      grep -qzx "$line" "$process/environ" 2> /dev/null || continue 2
    done
    echo "${process#/proc/}"
  done
}

stop() {
  if alive "$FOLDER/run/slurmctld.pid"; then
    timeout 10 scancel --user="$(id -un)" || true
    for ((i = 0; i < 50; i++)); do
      [ -n "$(timeout 10 squeue --noheader)" ] || break
      sleep 0.1
    done
  fi
  for daemon in "${NODES[@]}" slurmctld slurmdbd mariadbd munged; do
    end "$FOLDER/run/$daemon.pid"
  done
  # What a command that was killed leaves; and, without control groups, a job that was requeued.
  kill -KILL $(with "INSIDE=$FOLDER") $(with "SLURM_CONF=$SLURM_CONF" "SLURM_JOB_ID=.*") 2> /dev/null || true
}

inside() {
  trap stop EXIT
  start
  env "INSIDE=$FOLDER" "NODE_ROBUSTNESS_CLUSTER=$FOLDER" "PATH=$FOLDER/bin:$PATH" "$@"
}

fail() {
  local pid job
  kill -KILL "$(cat "$FOLDER/run/$1.pid")"
  for job in $(squeue --noheader --nodelist="$1" --format=%A); do
    # The steps first: they would still report how their processes ended.
    for pid in $(with "SLURM_CONF=$SLURM_CONF"); do
      if grep -qs "^slurmstepd: \[$job\." "/proc/$pid/cmdline"; then kill -KILL "$pid"; fi
    done
    kill -KILL $(with "SLURM_CONF=$SLURM_CONF" "SLURM_JOB_ID=$job") 2> /dev/null || true
  done
  scontrol update "nodename=$1" state=down reason=failed # as SLURM does itself after SlurmdTimeout
}

case ${1:-} in
  install) install ;;
  run) inside "${@:2}" ;;
  start) start ;;
  stop) stop ;;
  restart)
    end "$FOLDER/run/slurmctld.pid"
    sleep "${2:-0}"
    slurmctld
    ;;
  fail) fail "$2" ;;
  env) echo "export NODE_ROBUSTNESS_CLUSTER=$FOLDER SLURM_CONF=$SLURM_CONF PATH=$FOLDER/bin:\$PATH" ;;
  *)
    sed -n 's/^# \?//; 2,11p' "$0"
    exit 2
    ;;
esac
