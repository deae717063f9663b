# Builds the cluster's environments in /opt/hpc, which is there and empty: a virtual environment's
# scripts hold the path at which they were made. Arguments: pinned requirements of lab, and of data.
set -eu
umask 022
lab_requirements=$1 data_requirements=$2
python=/usr/bin/python3.11

pip() {
    prefix=$1 requirements=$2
    "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --require-hashes -r "$requirements"
}
echo "  environment lab: JupyterLab"
"$python" -m venv /opt/hpc/lab
pip /opt/hpc/lab "$lab_requirements"

# One environment on top of another, as sites have them: its own packages, the other's Jupyter.
echo "  environment data: pandas and matplotlib on top of lab"
"$python" -m venv /opt/hpc/data
site_packages=lib/python3.11/site-packages
echo "/opt/hpc/lab/$site_packages" >"/opt/hpc/data/$site_packages/lab.pth"
pip /opt/hpc/data "$data_requirements"
# The magics and `hpchub kernels` lie in a folder of their own, so that this need not be built again whenever
# they change. The magics are loaded for everybody: `%squeue` works in a new notebook.
echo /opt/slurm_magics >"/opt/hpc/data/$site_packages/slurm_magics.pth"
mkdir -p /opt/hpc/data/etc/ipython
echo 'get_config().InteractiveShellApp.extensions = ["slurm_magics"]' \
    >/opt/hpc/data/etc/ipython/ipython_config.py
for part in share/jupyter etc/jupyter; do
    mkdir -p "/opt/hpc/data/$part"
    # Beside what its own packages brought, the buttons of ipywidgets. JupyterLab serves no symbolic links.
    cp -R --link --no-clobber "/opt/hpc/lab/$part/." "/opt/hpc/data/$part/"
done
for script in /opt/hpc/lab/bin/jupyter*; do
    sed '1s|/opt/hpc/lab/|/opt/hpc/data/|' "$script" >"/opt/hpc/data/bin/${script##*/}"
    chmod 755 "/opt/hpc/data/bin/${script##*/}"
done
printf '%s\n' '#!/opt/hpc/data/bin/python' 'import sys' 'from hpchub.cli import main' 'sys.exit(main())' \
    >/opt/hpc/data/bin/hpchub
chmod 755 /opt/hpc/data/bin/hpchub
# What pip would have put beside the magics: hpchub's part of JupyterLab and of its server.
mkdir -p /opt/hpc/data/etc/jupyter/jupyter_server_config.d
for part in share/jupyter/labextensions/hpchub-kernels etc/jupyter/jupyter_server_config.d/hpchub-kernels.json; do
    ln -s "/opt/slurm_magics/$part" "/opt/hpc/data/$part"
done
# A kernel that cannot start says why.
echo 'c = get_config(); c.KernelProvisionerFactory.default_provisioner_name = "hpchub-local"' \
    >>/opt/hpc/data/etc/jupyter/jupyter_server_config.py

echo "  environment broken: no Jupyter in it"
"$python" -m venv --without-pip /opt/hpc/broken
