# Makes the folders that daemons want on a host. Arguments: where /run and /var/spool are.
set -eu
run=$1 spool=$2
install -d -o munge -g munge -m 755 "$run/munge"
install -d -o munge -g munge -m 700 "$run/munge-state"
install -d -o mysql -g mysql -m 755 "$run/mysqld"
install -d -o slurm -g slurm -m 755 "$run/slurmdbd" "$spool/slurmctld"
install -d -m 755 "$spool/slurmd" /run/sshd
