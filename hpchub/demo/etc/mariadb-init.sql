CREATE DATABASE slurm_acct_db;
FLUSH PRIVILEGES;
CREATE USER slurm@localhost IDENTIFIED VIA unix_socket;
GRANT ALL ON slurm_acct_db.* TO slurm@localhost;
