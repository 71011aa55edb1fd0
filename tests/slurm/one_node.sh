#!/usr/bin/env bash
# Start a Slurm cluster of one node on this machine, for tests. Debian or Ubuntu, as root.
set -euo pipefail

if ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q > /dev/null
  apt-get install -y -q --no-install-recommends slurm-wlm munge > /dev/null
fi
if [ -s /etc/slurm/slurm.conf ] && ! grep -qx "ClusterName=one" /etc/slurm/slurm.conf; then
  echo "/etc/slurm/slurm.conf is that of another cluster: left as it is" >&2
  exit 1
fi
host=$(hostname -s)
grep -qw "$host" /etc/hosts || echo "127.0.0.1 $host" >> /etc/hosts

# Munge proves to Slurm who sends a message: one key, a daemon of its own user.
mkdir -p /etc/munge /run/munge /var/lib/munge /var/log/munge
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
chmod 400 /etc/munge/munge.key
chmod 755 /run/munge
pgrep -x munged > /dev/null || runuser -u munge -- "$(command -v munged || echo /usr/sbin/munged)"

# No accounting data base: states are asked of the controller, which forgets a job after MinJobAge seconds.
mkdir -p /etc/slurm /var/lib/slurm/state /var/lib/slurm/node /var/log/slurm
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
cat > /etc/slurm/slurm.conf << CONF
ClusterName=one
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/lib/slurm/state
SlurmdSpoolDir=/var/lib/slurm/node
SlurmctldLogFile=/var/log/slurm/controller.log
SlurmdLogFile=/var/log/slurm/node.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
MinJobAge=600
NodeName=$host CPUs=$(nproc --all) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
pgrep -x slurmctld > /dev/null || slurmctld
sleep 1
pgrep -x slurmd > /dev/null || slurmd
for _ in $(seq 60); do
  if sinfo --noheader --format %T 2> /dev/null | grep -qE "idle|mixed|allocated"; then
    exit 0
  fi
  sleep 0.5
done
echo "the node did not come up: see /var/log/slurm" >&2
exit 1
